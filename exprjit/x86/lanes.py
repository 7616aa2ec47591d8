"""Graph to lane code: the formula for as many rows as a vector register has lanes.

As in select.py, one walk backwards over the graph, demanding what it needs. A node can be asked for
as a value, one number in each lane, or if it is a condition as a mask, whatever that is in the
instruction set. Which instructions compute it says an `Isa` (avx512.py, avx2.py).

What is the same for all rows (constants, scalar columns and what is computed of these) is made
once, before the loop. Conditions under which the interpreter has to answer are gathered into one
mask for a block of rows; it may be set where no row fails, for the rows of such a block are then
taken one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final, NamedTuple

from ..ir.graph import CALL, CALL_IF, CONST, PARAM, Graph, Node
from .arms import Arms, table_cost
from .assembler import Label
from .by_lane import ByLane
from .instructions import Instruction
from .lane_code import FIRST_LANE, Here, Op, Skip, read, written
from .vectors import VECTORS


class Form(NamedTuple):
    """What is computed as if there were such a node."""

    op: str
    args: tuple[Node, ...]


#: What an invariant is: ("const", its 64 bits), ("pair", the bits of even and of odd lanes),
#: ("iota", n) for the numbers of the lanes from n on, ("scalar", the column's position).
Invariant = tuple[Any, ...]


class NoLanes(Exception):
    """The formula has what cannot be computed in lanes; the text is the operator."""


class LaneBlock(NamedTuple):
    """The code for one vector of rows.

    code: in order.  hoisted: what comes before the loop.  params: the registers of the columns, by
    position.  invariants: the registers of what is the same for all rows.  value, mask: the result
    as one of the two.  bails: masks of rows that have to be looked at; signs: vectors whose
    sign bits are such.  registers: how many there are.
    """

    code: list[Op]
    hoisted: list[Op]
    params: dict[int, int]
    invariants: dict[Invariant, int]
    value: int | None
    mask: int | None
    bails: list[int]
    signs: list[int]
    registers: int


Lowering = Callable[["Lanes", Node, int], None]


class Isa(NamedTuple):
    """How nodes become instructions on vectors.

    lanes: how many rows a register holds.  values, masks: lowerings by operator name, which leave
    the node in a given register, as a value or as a mask.  from_mask, to_mask: make one of the
    other.  signs: by operator of an overflow, what makes a vector that has it in its sign bits.
    vectors, mask_registers: the registers that code may use.  wide: what is computed dearly because
    its operands may be great.  polish: joins instructions; what is needed behind the code is kept,
    and the register with all bits set is known.
    """

    lanes: int
    values: dict[str, Lowering]
    masks: dict[str, Lowering]
    from_mask: Callable[[Lanes, int, int], None]
    to_mask: Callable[[Lanes, int, int], None]
    signs: dict[str, Lowering]
    vectors: tuple[int, ...]
    mask_registers: tuple[int, ...]
    wide: Callable[[Node], bool]
    polish: Callable[[list[Op], Collection[int], int | None], list[Op]]


class _Walk:
    """A walk over the nodes that only an arm needs, last first.

    root: the value of the arm.  choices: the masks of the choices that lead there, each with
    whether rows take the arm where it is set; the innermost first.
    """

    def __init__(self, root: Node, choices: list[tuple[int, bool]]) -> None:
        self.root = root
        self.choices = choices
        self.label = Label("behind the arm")
        #: Found when the walk begins.
        self.nodes: Iterator[Node] | None = None


#: What operations cost by constants, unless numbers are great; and which.
_BY_CONSTANT: Final = 5
_BY_CONSTANTS: Final = ("div", "rem", "floordiv", "floormod", "udiv", "umod", "pow")

#: So many choices are looked at to see whether rows take an arm.
_CHOICES: Final = 3

#: The operators on booleans that are the same on masks.
_LOGIC: Final = ("bitand", "bitor", "bitxor")


class Lanes:
    """The walk's state, and what lowerings may ask for."""

    def __init__(
        self, graph: Graph, isa: Isa, scalars: Iterable[int], features: frozenset[str]
    ) -> None:
        self.graph = graph
        self.isa = isa
        self.features = features
        self.scalars = frozenset(scalars)
        self.nodes = graph.nodes[:]
        self.live = frozenset(self.nodes)
        self.values: dict[Node, int] = {}
        self.masks: dict[Node, int] = {}
        self.invariants: dict[Invariant, int] = {}
        #: By the node that is computed together with another: the register of that.
        self.partners: dict[Node, int] = {}
        #: The divisors that are not 0 in rows that do not bail.
        self.nonzero: set[Node] = set()
        self.done: set[Node] = set()
        self.uses: dict[Node, int] = {}
        for node in self.nodes:
            for arg in node.args:
                self.uses[arg] = self.uses.get(arg, 0) + 1
        self.tag: object = None
        #: What only arms need; how often nodes were asked for; the walks over arms that are to
        #: come, and those that are on their way.
        self.arms = Arms(graph, self.nodes, self._cost)
        self._asks: dict[Node, int] = {}
        self._next: list[_Walk] = []
        self._walks: list[_Walk] = []
        self._count = FIRST_LANE
        self._group: list[Op] = []
        self._groups: list[list[Op]] = []

    def _cost(self, node: Node) -> int:
        """What a node costs in lanes: by constants, some instructions do for what is dear else."""
        if node.op in _BY_CONSTANTS and node.args[1].op is CONST:
            power_of_two = node.args[1].value.bit_count() == 1
            if node.op == "pow" or power_of_two or not self.isa.wide(node):
                return _BY_CONSTANT
        return table_cost(node)

    def new(self) -> int:
        """A fresh virtual register."""
        self._count += 1
        return self._count - 1

    def invariant(self, *form: Any) -> int:
        """The register of what is the same for all rows."""
        register = self.invariants.get(form)
        if register is None:
            register = self.invariants[form] = self.new()
        return register

    def constant(self, value: int) -> int:
        """The register that has this number in all lanes."""
        return self.invariant("const", value & (1 << 64) - 1)

    def value(self, node: Node) -> int:
        """The register that will hold a node as numbers."""
        if node.op is CONST:
            return self.constant(node.value)
        if node.op is PARAM and node.value in self.scalars:
            return self.invariant("scalar", node.value)
        self._asks[node] = self._asks.get(node, 0) + 1
        register = self.values.get(node)
        if register is None:
            register = self.values[node] = self.new()
        return register

    def mask(self, node: Node) -> int:
        """The register that will hold as a mask whether a node is not 0."""
        self._asks[node] = self._asks.get(node, 0) + 1
        register = self.masks.get(node)
        if register is None:
            register = self.masks[node] = self.new()
        return register

    def asked(self, node: Node) -> bool:
        """Whether somebody needs a node already, so that folding it saves nothing."""
        return node in self.values or node in self.masks

    def is_used_once(self, node: Node) -> bool:
        """Whether a node is an operand but once, and nobody has asked for it yet."""
        return self.uses.get(node) == 1 and not self.asked(node)

    def emit(self, key: str, *operands: Any, tied: int | None = None) -> None:
        """Add an instruction of the table of vectors; see `Op`."""
        self._group.append(Op(VECTORS[key], operands, tied, self.tag))

    def emit_by_lane(self, operator: str, register: int, *sources: int) -> None:
        """Compute what there are no instructions on vectors for."""
        self._group.append(Op(ByLane(operator), (register, *sources), None, self.tag))

    def skip(self, mask: int, then: Node, otherwise: Node) -> None:
        """Branch around the arms of a choice where no row takes them, if they are dear.

        The lowering of a choice says so when it has asked for both values.
        """
        if self.arms.possible:
            outer = self._walks[-1].choices if self._walks else []
            for root, holds in ((then, True), (otherwise, False)):
                self._next.append(_Walk(root, [(mask, holds), *outer][:_CHOICES]))

    def find(self, op: str, *args: Node) -> Node | None:
        """The node for ``op(args)`` if it is computed at all."""
        node = self.graph.find(op, *args)
        return node if node in self.live and node is not None and node.args == args else None

    def run(self, as_mask: bool) -> LaneBlock:
        """Select everything; the result as a mask or as a value.

        Raises NoLanes.
        """
        graph = self.graph
        result = self.mask(graph.result) if as_mask else self.value(graph.result)
        bails, signs = self._bails()
        for node in reversed(self.nodes):
            self._step(node)
            while self._walks:
                self._go_on(self._walks[-1])
        code = [op for group in reversed(self._groups) for op in group]
        ones = self.invariants.get(("const", (1 << 64) - 1))
        code = self.isa.polish(code, {result, *bails, *signs}, ones)
        inner, hoisted = _hoist(code, set(self.invariants.values()))
        params = {
            node.value: register for node, register in self.values.items() if node.op is PARAM
        }
        value, mask = (None, result) if as_mask else (result, None)
        return LaneBlock(
            inner, hoisted, params, self.invariants, value, mask, bails, signs, self._count
        )

    def _step(self, node: Node) -> None:
        """Emit a node, unless it has been in an arm."""
        if node in self.done:
            return
        self.tag = node.span
        self._lower(node)
        self.done.add(node)
        self._close()
        # The arms come before what chooses between them.
        self._walks += self._next
        self._next = []

    def _go_on(self, walk: _Walk) -> None:
        """Emit the next node of an arm, its end if it is about to begin, or its beginning."""
        if walk.nodes is None:
            nodes = self.arms.find(walk.root, [], lambda node: self._is_shared(node, walk.root))
            if nodes is None:
                self._walks.pop()
                return
            walk.nodes = iter(nodes)
            self._group.append(Op(Here(walk.label, ends_arm=True), (), None, None))
            self._close()
        node = next(walk.nodes, None)
        if node is not None:
            self._step(node)
            return
        self._walks.pop()
        kind = "k" if self.isa.mask_registers else "x"
        masks, holds = zip(*walk.choices, strict=True)
        self._group.append(Op(Skip(walk.label, holds, kind), masks, None, None))
        self._close()

    def _is_shared(self, node: Node, root: Node) -> bool:
        """Whether somebody beside the choice needs a node of the arm of the value `root`."""
        return self._asks.get(node, 0) > (node is root)

    def _bails(self) -> tuple[list[int], list[int]]:
        bails, signs = [], []
        for bail in self.graph.bails:
            condition = bail.condition
            if condition.op is CONST:
                raise NoLanes("what always fails")
            if condition.op == "eq" and condition.args[1] is self.graph.const(0):
                self.nonzero.add(condition.args[0])
            sign = self.isa.signs.get(condition.op)
            if sign is None or self.asked(condition):
                bails.append(self.mask(condition))
            else:
                self.tag = bail.span
                signs.append(self.new())
                sign(self, condition, signs[-1])
                self._close()
        return bails, signs

    def _close(self) -> None:
        if self._group:
            self._groups.append(self._group)
            self._group = []

    def _lower(self, node: Node) -> None:
        """Emit a node in all the forms that were asked for."""
        mask, value = self.masks.get(node), self.values.get(node)
        if mask is None and value is None:
            return
        if node.op is CONST:
            # A condition that always holds, or never: seldom, since rules know such.
            assert mask is not None
            self.isa.to_mask(self, self.constant(node.value), mask)
        elif node.op is PARAM:
            if mask is not None:
                self.isa.to_mask(self, self.value(node), mask)
        elif node.op in (CALL, CALL_IF):
            raise NoLanes(node.op)
        elif self._is_condition(node):
            given = self.new() if mask is None else mask
            self.isa.masks[node.op](self, node, given)
            if value is not None:
                self.isa.from_mask(self, given, value)
        else:
            given = self.new() if value is None else value
            lowering = self.isa.values.get(node.op)
            if lowering is None:
                raise NoLanes(node.op)
            lowering(self, node, given)
            if mask is not None:
                self.isa.to_mask(self, given, mask)

    def _is_condition(self, node: Node) -> bool:
        """Whether a node is computed as a mask."""
        if node.op in _LOGIC:
            return all(arg.boolean and self._has_mask(arg) for arg in node.args)
        return node.op in self.isa.masks

    def _has_mask(self, node: Node) -> bool:
        """Whether a boolean is there as a mask, or can be had as one as cheaply as as a value."""
        return node in self.masks or node.op in self.isa.masks or node.op in (PARAM, CONST)


def _hoist(code: list[Op], invariants: set[int]) -> tuple[list[Op], list[Op]]:
    """Split code into what depends on rows and what does not."""
    inner, hoisted = [], []
    known = set(invariants)
    for op in code:
        to = written(op)
        if to is not None and all(value in known for value in read(op)) and _is_vector(op):
            known.add(to)
            hoisted.append(op)
        else:
            inner.append(op)
    return inner, hoisted


def _is_vector(op: Op) -> bool:
    """Whether an instruction makes a vector of vectors; masks are too few to be kept."""
    return isinstance(op.instruction, Instruction) and all(
        kind in "xi" for kind in op.instruction.kinds
    )
