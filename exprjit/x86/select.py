"""Graph to block: which instructions compute the nodes.

One walk over the graph, backwards, demanding what it needs: when a node is reached, all
its users have been seen, and they have either asked for it in a register or folded it into
an instruction of their own.  A node that nobody asked for costs nothing.

The instructions themselves are chosen by a domain of lanes (scalar.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from ..ir.graph import CONST, PARAM, Bail, Graph, Node
from ..ir.schedule import schedule
from .arms import Arms, guarded
from .assembler import Label
from .block import FIRST_VIRTUAL, Block, Fork, Join, Macro, Virtual
from .flags import reuse_flags
from .instructions import INSTRUCTIONS
from .macros import Log

Lowering = Callable[["Selector", Node, int], None]


class Domain(NamedTuple):
    """How nodes become instructions.

    lowerings: by operator name; each emits code that leaves the node in a given register.
    bytes: the same for booleans of which only the low byte is asked for.
    bail: emits code that leaves the block if a condition is not 0.
    constant: emits code that puts a number in a register.
    """

    lowerings: dict[str, Lowering]
    bytes: dict[str, Lowering]
    bail: Callable[[Selector, Node], None]
    constant: Callable[[Selector, int, int], None]


class _Walk(NamedTuple):
    """Nodes to come to, last first, the bail conditions among them, and what to do at the end.

    Only the walks over arms have an end.
    """

    nodes: Iterator[Node]
    bails: list[Bail]
    end: Callable[[], None] | None


class Selector:
    """The walk's state, and what lowerings may ask for."""

    def __init__(self, graph: Graph, domain: Domain, features: frozenset[str]) -> None:
        self.graph = graph
        self.domain = domain
        self.features = features
        self.leave = Label("bail")
        nodes = graph.nodes[:]  # All of them are needed: `schedule` has left out the others.
        #: The nodes that the walk will come to, last first.
        self.nodes = nodes[::-1]
        self.live = frozenset(nodes)
        #: The register of each node that somebody asked for.
        self.registers: dict[Node, int] = {}
        #: The registers of booleans of which only the low byte was asked for.
        self.bytes: dict[Node, int] = {}
        #: Where conditions were checked: before the nodes from this index on.
        self.checked = {bail.condition: bail.position for bail in graph.bails}
        #: What only arms need; what was made in arms; what values are not in the arm at hand; the
        #: guards of the arms.
        self.arms = Arms(graph, nodes)
        self.made: set[Node] = set()
        self.never: set[tuple[Node, int]] = set()
        self.guards: list[Node | None] = []
        #: By guard: the bail conditions under it; and those that are left to an arm.
        self.guarded: dict[Node, list[Bail]] = {}
        self.claimed: set[Bail] = set()
        self.claimed_conditions: set[Node] = set()
        #: The walks to be done, the innermost arm's last.
        self._walks: list[_Walk] = []
        #: Nodes whose overflow flag leaves the block, with the source range of the check.
        self.trapping: dict[Node, Any] = {}
        #: By the node whose instruction computes both: the operator and the register of another.
        self.partners: dict[Node, tuple[str, int]] = {}
        #: Where the results of these calls are written down for the interpreter.
        self.log: Log | None = None
        self.logged: Collection[Node] = ()
        self.tag: object = None
        self._count = FIRST_VIRTUAL
        #: The instructions of the node at hand, in order.
        self._group: list[Virtual] = []
        #: The instructions of the nodes so far, the last node's first.
        self._groups: list[list[Virtual]] = []

    def new(self) -> int:
        """A fresh virtual register."""
        self._count += 1
        return self._count - 1

    def register(self, node: Node) -> int:
        """The register that will hold `node`."""
        register = self.registers.get(node)
        if register is None:
            # Whoever asked for the low byte of it gets that with the rest.
            register = self.bytes.pop(node, None) or self.new()
            self.registers[node] = register
        return register

    def byte(self, node: Node) -> int:
        """The register whose low byte will hold `node`, a boolean; the rest is anything."""
        register = self.registers.get(node) or self.bytes.get(node)
        if register is None:
            register = self.bytes[node] = self.new()
        return register

    def wanted(self, node: Node) -> bool:
        """Whether some user has `node` in a register, so that folding it saves nothing."""
        return node in self.registers

    def find(self, op: str, *args: Node) -> Node | None:
        """The node for ``op(args)`` if the walk comes to one that computes just that."""
        node = self.graph.find(op, *args)
        if node in self.live and node.op == op and node.args == args:
            return node
        return None

    def emit(
        self,
        key: str | Macro | Fork | Join,
        *operands: Any,
        tied: int | None = None,
        reads: tuple[int, ...] = (),
        writes: tuple[int | None, ...] = (),
        flags: bool = False,
    ) -> None:
        """Add an instruction; see `Virtual` for the arguments."""
        instruction = INSTRUCTIONS[key] if isinstance(key, str) else key
        self._group.append(Virtual(instruction, operands, tied, reads, writes, flags, self.tag))

    def is_used_once(self, node: Node) -> bool:
        """Whether `node` is an operand but once, and nobody has asked for it yet."""
        return self.arms.uses[node] == 1 and not self.asked(node)

    def asked(self, node: Node) -> bool:
        """Whether somebody needs `node` in a register, all of it or its low byte."""
        return node in self.registers or node in self.bytes

    def run(self, result: Callable[[Selector, int], None]) -> Block:
        """Select everything; `result` emits what becomes of the result's register."""
        graph = self.graph
        self.tag = graph.result.span
        result(self, self.register(graph.result))
        self.close()
        for node in graph.effects:
            self.register(node)
        bails = [bail for bail in graph.bails if not self.rides(bail, self.live)]
        self.guarded = guarded(bails)
        self.walk(iter(self.nodes), bails, None)
        while self._walks:
            self._step(self._walks[-1])
        code = reuse_flags([virtual for group in reversed(self._groups) for virtual in group])
        params = {
            node.value: register for node, register in self.registers.items() if node.op is PARAM
        }
        calls = bool(graph.externs)
        return Block(code, dict(sorted(params.items())), self.leave, bool(graph.bails), calls)

    def walk(
        self, nodes: Iterator[Node], bails: list[Bail], end: Callable[[], None] | None
    ) -> None:
        """Walk over `nodes` next, last first, with the bail conditions among them; then `end`."""
        self._walks.append(_Walk(nodes, bails, end))

    def _step(self, walk: _Walk) -> None:
        """Go on with a walk to its next node, or end it."""
        node = next(walk.nodes, None)
        while walk.bails and (node is None or walk.bails[-1].position > node.index):
            bail = walk.bails.pop()
            if bail not in self.claimed:
                self._bail(bail)
                self.close()
        if node is None:
            self._walks.pop()
            if walk.end is not None:
                walk.end()
            return
        if node in self.made:
            return
        if walk.end is not None:
            self.made.add(node)
        if node in self.registers and node.op is not PARAM:
            self._lower(node, self.registers[node], self.domain.lowerings)
        elif node in self.bytes:
            self._lower(node, self.bytes[node], self.domain.bytes)
        self.close()

    def close(self) -> None:
        """The instructions so far are those of one node; the next ones come before them."""
        if self._group:
            self._groups.append(self._group)
            self._group = []

    def _lower(self, node: Node, register: int, lowerings: dict[str, Lowering]) -> None:
        self.tag = node.span
        if node.op is CONST:
            self.domain.constant(self, node.value, register)
        else:
            lowerings[node.op](self, node, register)

    def _bail(self, bail: Bail) -> None:
        self.tag = bail.span
        self.domain.bail(self, bail.condition)

    def rides(self, bail: Bail, nodes: Collection[Node]) -> bool:
        """Whether the condition is the overflow of arithmetic that is done anyway, among `nodes`.

        It is then checked by a branch behind that instruction.  That may be earlier than
        the condition's place, which does no harm: bailing early only means that the
        interpreter starts over.  Later is as good, unless something is called in between.
        """
        condition = bail.condition
        if not condition.op.endswith("_overflows"):
            return False
        operation = condition.op.removesuffix("_overflows")
        node = self.find(operation, *condition.args)
        if node not in nodes or operation == "pow":
            return False
        assert node is not None
        if self.effect_between(bail.position, node.index):
            return False
        self.register(node)
        self.trapping[node] = bail.span
        return True

    def effect_between(self, start: int, stop: int) -> bool:
        """Whether a call that may have effects is among the nodes from `start` to `stop`."""
        effects = self.graph.effects
        first = bisect_left(effects, start, key=lambda node: node.index)
        return first < len(effects) and effects[first].index < stop


def select(
    graph: Graph,
    domain: Domain,
    features: frozenset[str],
    result: Callable[[Selector, int], None],
) -> Block:
    """The block that computes `graph` with the instructions of `domain`.

    features: what the CPU has, in the names of CPUID; result: emits what becomes of the
    result (a macro or an instruction that reads its register).  The graph is put in order.
    """
    schedule(graph)
    return Selector(graph, domain, features).run(result)
