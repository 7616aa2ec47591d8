"""How large a program may be; counted before the work that it bounds."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import ExprTypeError, ExprValueError, shown


class Limits(NamedTuple):
    """Bounds of a program.

    text: characters of source.
    tokens: literals, names, operators and punctuation.
    depth: brackets open at once.
    nodes: syntax-tree nodes with every definition expanded where it is called.
    graph: nodes of the compiler's graph; a formula that needs more is interpreted.
    code: bytes of machine code.
    """

    text: int = 4_000_000
    tokens: int = 400_000
    depth: int = 20_000
    nodes: int = 2_000_000
    graph: int = 1_000_000
    code: int = 64_000_000


DEFAULT = Limits()
#: For formulas that are typed by strangers.
UNTRUSTED = Limits(
    text=100_000, tokens=20_000, depth=1_000, nodes=20_000, graph=20_000, code=1_000_000
)


def limits_from(value: object) -> Limits:
    """What the option ``limits=`` means: None, "untrusted", a dict of fields, or `Limits`.

    Raises ExprTypeError or ExprValueError.
    """
    if value is None or value is DEFAULT:
        return DEFAULT
    if isinstance(value, Limits):
        fields = value._asdict()
    elif isinstance(value, dict):
        fields = value
    elif isinstance(value, str) and value == "untrusted":
        return UNTRUSTED
    else:
        raise ExprTypeError(
            f'limits must be None, "untrusted", a dict or exprjit.Limits, not {shown(value)}'
        )
    for name, bound in fields.items():
        if name not in Limits._fields:
            known = ", ".join(Limits._fields)
            raise ExprValueError(f"no limit is called {shown(name)}; there are {known}")
        if not isinstance(bound, int) or isinstance(bound, bool) or bound < 1:
            raise ExprValueError(f"the limit '{name}' must be a positive int, not {shown(bound)}")
    return Limits(**fields)
