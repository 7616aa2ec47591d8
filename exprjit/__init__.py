"""Integer formulas to x86-64 machine code at run time.

>>> import exprjit
>>> f = exprjit.compile("x + 4")
>>> f(2)
6
"""

from __future__ import annotations

from .diagnosis import Diagnostics, diagnostics
from .errors import (
    ExprError,
    ExprLimitError,
    ExprNameError,
    ExprNoRowsError,
    ExprOverflowError,
    ExprSyntaxError,
    ExprTypeError,
    ExprValueError,
    ExprZeroDivisionError,
    JitUnavailableError,
    VerificationError,
)
from .function import Function, cache_clear, cache_info, compile, evaluate
from .language.externs import extern
from .language.limits import Limits
from .runtime.memory import collect
from .version import __version__

__all__ = [
    "Diagnostics",
    "ExprError",
    "ExprLimitError",
    "ExprNameError",
    "ExprNoRowsError",
    "ExprOverflowError",
    "ExprSyntaxError",
    "ExprTypeError",
    "ExprValueError",
    "ExprZeroDivisionError",
    "Function",
    "JitUnavailableError",
    "Limits",
    "VerificationError",
    "cache_clear",
    "cache_info",
    "collect",
    "compile",
    "diagnostics",
    "evaluate",
    "extern",
    "__version__",
]
