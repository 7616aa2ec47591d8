"""Loops over the rows of arrays, as many at a time as there are lanes, or some multiple.

The code has up to four bodies for the same formula:

- the main one, for several vectors at a time; if what is dear would be cheap for small numbers, it
  is made for these, and looks first whether all columns of the block are such;
- then a second one, for numbers of any size;
- one for a single vector, for the rows behind the last whole block;
- one for a single row (rows.py). Blocks with a row that may fail are done by this one, so it alone
  decides which row that is; so are rows that do not fill a vector.

All of them begin at the row in `ROW` and leave nothing half done when they give up: what they do
for a block comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from ..ir.facts import Facts
from ..ir.graph import Graph
from ..ir.magnitudes import Small, worth_checking
from .assembler import Label, Line, encode, line, place
from .instructions import Instruction
from .kernels import MAX_FRAME, WORD, Code, FrameTooLarge
from .lane_alloc import Home, LaneAllocator, Slots
from .lane_bodies import Bodies, Body, Exits
from .lane_code import SHARED, Op, operands, pressure, read, written
from .lane_ends import KEPT, Ends
from .lanes import LaneBlock, NoLanes
from .liveness import preferred
from .regalloc import allocate
from .registers import CALLEE_SAVED, CC, R13, R15, RAX, RDI, RDX, RSI, RSP, Mem
from .rows import RESERVED, ROW, STOP, Plan, State, row_block, word
from .vectors import VECTORS

#: The registers that hold where the rows that are done one by one end, and the frame's end.
LIMIT: Final = R13
FRAME: Final = R15

#: At most so many vectors are done at a time.
_UNROLL: Final = (4, 2, 1)

#: For so many rows it pays to have results begin with a line of the cache.
_WORTH_ALIGNING: Final = 2048

#: Kernels whose code for a vector writes for all of its rows, whether they are there or not.
_WHOLE: Final = ("mask", "bitmap", "indices")


def lane_rows(
    plan: Plan,
    ends: Ends,
    features: frozenset[str],
    build: Callable[[Mapping[int, Facts]], Graph],
    build_scalar: Callable[[], Graph],
) -> Code:
    """The kernel of a plan that takes many rows at a time.

    build: the graph, for what is known of parameters by position beside their types.  build_scalar:
    the graph for rows that are done one by one.  Raises NoLanes.
    """
    loop = Bodies(plan, ends, features)
    graph = build({})
    small = worth_checking(graph, ends.isa.wide)
    narrow = None if small is None else loop.block(build(small.known))
    wide = None
    try:
        wide = loop.block(graph)
    except NoLanes:
        if narrow is None:
            raise
    return _Assembly(loop, build_scalar(), wide, narrow, small).code()


class _Assembly:
    """The bodies with registers, in order, and what is around them."""

    def __init__(
        self,
        loop: Bodies,
        scalar: Graph,
        wide: LaneBlock | None,
        narrow: LaneBlock | None,
        small: Small | None,
    ) -> None:
        self.loop = loop
        self.ends = ends = loop.ends
        self.plan = plan = loop.plan
        self.small = small
        self.row = row_block(scalar, plan, loop.features)
        usual = [r for r in preferred(self.row) if r not in (*RESERVED, LIMIT, FRAME)]
        self.scalar = allocate(self.row, {}, Mem(RSP), usual)
        wide, narrow = (None if b is None else loop.shared(b) for b in (wide, narrow))
        main = wide if narrow is None else narrow
        assert main is not None
        self.turns = self._turns(main)
        count = ends.accumulators(plan, self.turns)
        vectors = ends.isa.vectors
        self.loop.accumulators = self.accumulators = list(vectors[len(vectors) - count :])
        self.vectors = vectors[: len(vectors) - count]
        self.live = ends.masks_tail and plan.kernel not in _WHOLE
        self.slow, self.slow_rest = Label("one by one"), Label("one by one, at the end")
        self.some = Label("some one by one")
        self.wide_label = Label("numbers of any size")
        exits = Exits(self.slow if wide is None else self.wide_label, self.slow)
        self.main = loop.body(main, self.turns, small, False, exits)
        self.wide = None
        if wide is not None and narrow is not None:
            self.wide = loop.body(wide, self.turns, None, False, exits)
        rest = Exits(self.slow_rest, self.slow_rest)
        self.rest: Body | None = None
        if self.live or self.turns > 1:
            with suppress(NoLanes):
                block, limit = (main, small) if wide is None else (wide, None)
                self.rest = loop.body(block, 1, limit, self.live, rest)
        slots = -(-WORD * self.scalar.slots // 64) * 64
        self.slots = Slots(Mem(RSP, disp=slots), ends.storage.size)
        self.homes = self._homes()
        #: What is behind the function's end.
        self.cold: list[Line] = list(self.scalar.cold)

    def _turns(self, block: LaneBlock) -> int:
        """How many vectors at a time leave their values in registers."""
        isa, ends = self.ends.isa, self.ends
        result = [] if block.value is None else [block.value]
        kept = [*block.bails, *([] if block.mask is None else [block.mask])]
        vectors = pressure(block.code, result) + len(block.params) // 2
        masks = pressure(block.code, kept, "kz") if isa.mask_registers else 0
        for turns in _UNROLL:
            most = turns * vectors + ends.accumulators(self.plan, turns)
            if most <= len(isa.vectors) - 2 and turns * masks <= max(
                len(isa.mask_registers), masks
            ):
                return turns
        return 1

    def _homes(self) -> dict[int, Home]:
        """The invariants that are used most get the registers that no body needs."""
        uses: dict[int, int] = {}
        bodies = [body for body in (self.main, self.rest, self.wide) if body is not None]
        for body in bodies:
            weight = 8 if body is self.main else 1
            for item in body.code:
                for value in read(item):
                    if value >= SHARED:
                        uses[value] = uses.get(value, 0) + weight
        needed = max(pressure(_without_invariants(body.code)) for body in bodies)
        # One instruction may have all its operands in memory, of which it reads one from there.
        items = (item for code in (*(b.code for b in bodies), self.loop.hoisted) for item in code)
        room = max(0, len(self.vectors) - max(needed + 1, *map(_vectors, items)))
        ranked = sorted(uses, key=lambda value: -uses[value])
        homes: dict[int, Home] = dict(zip(ranked, self.vectors[::-1], strict=False))
        for value in ranked[room:]:
            homes[value] = self.slots.new()
        # What only other invariants are made of has a place as well.
        for item in self.loop.hoisted:
            result = written(item)
            assert result is not None
            for value in (*read(item), result):
                if value not in homes:
                    homes[value] = self.slots.new()
        kept = [home for home in homes.values() if isinstance(home, int)]
        self.free = [register for register in self.vectors if register not in kept]
        return homes

    def _allocated(self, body: Body) -> list[Line]:
        masks = self.ends.isa.mask_registers
        storage = self.ends.storage
        allocator = LaneAllocator(body.code, self.homes, self.free, masks, storage, self.slots)
        lines = allocator.run()
        self.cold += allocator.cold
        return lines

    def _invariants(self) -> list[Line]:
        """What is made before the loop: numbers first, then what is computed of them."""
        ends, loop = self.ends, self.loop
        lines: list[Line] = []
        work = self.free[0]
        for form, value in loop.forms.items():
            home = self.homes.get(value)
            if home is None:
                continue
            scalar = word(State.COLUMNS + form[1]) if form[0] == "scalar" else None
            register = home if isinstance(home, int) else work
            lines += ends.home(form, scalar, register)
            if isinstance(home, Mem):
                lines.append((VECTORS[ends.storage.store], (home, register), None))
        for item in loop.hoisted:
            lines += self._hoisted(item)
        return lines

    def _hoisted(self, item: Op) -> list[Line]:
        """An instruction on invariants, each in its home."""
        lines: list[Line] = []
        spare = list(self.free)
        storage = self.ends.storage
        load, store, move = VECTORS[storage.load], VECTORS[storage.store], VECTORS[storage.move]
        physical: list[Any] = []
        destination: tuple[int, Home] | None = None
        for kind, role, operand in operands(item):
            if kind != "x":
                physical.append(operand)
                continue
            home = self.homes[operand]
            register = home if isinstance(home, int) else spare.pop(0)
            if role == "r":
                if isinstance(home, Mem):
                    lines.append((load, (register, home), None))
            else:
                destination = register, home
                if item.tied is not None:
                    source = self.homes[item.tied]
                    key = load if isinstance(source, Mem) else move
                    # It may be the register of another operand, so it goes through one of its own.
                    register = spare.pop(0)
                    destination = register, home
                    lines.append((key, (register, source), None))
            physical.append(register)
        assert destination is not None
        assert isinstance(item.instruction, Instruction)
        lines.append((item.instruction, tuple(physical), item.tag))
        register, home = destination
        if isinstance(home, Mem):
            lines.append((store, (home, register), None))
        elif home != register:
            lines.append((move, (home, register), None))
        return lines

    # The whole. ------------------------------------------------------------------------------

    def code(self) -> Code:
        bodies = [self._allocated(self.main)]
        wide = None if self.wide is None else self._allocated(self.wide)
        rest = None if self.rest is None else self._allocated(self.rest)
        invariants = self._invariants()
        keep, restore = self._rounding([*invariants, *bodies[0], *(wide or ()), *(rest or ())])
        size = self.slots.base.disp + self.slots.size * self.slots.count
        if size > MAX_FRAME:
            raise FrameTooLarge(f"the formula needs {size:,} bytes of stack; at most {MAX_FRAME:,}")
        enter, loop, finish = Label("enter"), Label("loop"), Label("rest")
        done, leave = Label("done"), Label("leave")
        step = self.main.rows
        lines = [
            line("endbr64"),
            *(line("push_r", register) for register in CALLEE_SAVED),
            line("mov_rr", FRAME, RSP),
            *_stack(size),
            *keep,
            *(
                line("mov_rr", to, source)
                for to, source in zip(RESERVED, (RDI, RSI, RDX), strict=True)
            ),
            *self._aligned(enter),
            place(enter),
            *self.loop.pointers(),
            *invariants,
            *self._found(load=True),
            *_unless_room(step, finish),
            place(loop),
            *bodies[0],
            line("add_ri", ROW, step),
            *_while_room(step, loop),
            line("jmp_j", finish),
        ]
        if wide is not None:
            lines += [
                place(self.wide_label),
                *wide,
                line("add_ri", ROW, step),
                *_while_room(step, loop),
            ]
        lines += [place(finish), *self._rest(rest, done)]
        lines += [
            place(done),
            *self._found(load=False),
            *_zeroed(),
            line("mov_rr", RAX, STOP),
            place(leave),
            *([line("sfence")] if self.plan.streams else []),
            *restore,
            line("mov_rr", RSP, FRAME),
            *(line("pop_r", register) for register in reversed(CALLEE_SAVED)),
            line("ret"),
            *self._one_by_one(step, enter, leave),
        ]
        words = len(self.accumulators) * self.ends.storage.size // WORD
        return Code(encode(lines + self.cold), self.row, lanes=words)

    def _rounding(self, lines: list[Line]) -> tuple[list[Line], list[Line]]:
        """What puts the caller's rounding mode and exceptions aside, and what brings them back.

        They matter where doubles are used by instructions that do not say how they round.
        """
        if not any(_obeys_caller(item) for item, _, _ in lines):
            return [], []
        slot = self.slots.new()
        ours = slot._replace(disp=slot.disp + 4)
        return [
            line("stmxcsr_m", slot),
            line("mov32_mi", ours, _MXCSR),
            line("ldmxcsr_m", ours),
        ], [line("ldmxcsr_m", slot)]

    def _rest(self, body: list[Line] | None, done: Label) -> list[Line]:
        """The rows that are fewer than the main body does at a time."""
        lanes, again = self.loop.isa.lanes, Label("vector")
        if body is None:
            return [
                line("cmp_rr", ROW, STOP),
                line("jcc_j", CC["l"], self.slow),
            ]
        if self.live:
            return [
                line("cmp_rr", ROW, STOP),
                line("jcc_j", CC["ge"], done),
                place(again),
                *self.ends.tail(),
                *body,
                line("add_ri", ROW, lanes),
                line("cmp_rr", ROW, STOP),
                line("jcc_j", CC["l"], again),
            ]
        few = Label("few")
        return [
            *_unless_room(lanes, few),
            place(again),
            *body,
            line("add_ri", ROW, lanes),
            *_while_room(lanes, again),
            place(few),
            line("cmp_rr", ROW, STOP),
            line("jcc_j", CC["l"], self.slow_rest),
        ]

    def _one_by_one(self, step: int, enter: Label, leave: Label) -> list[Line]:
        """The rows of a block in which one may fail."""
        rows = Label("row")
        return [
            place(self.slow),
            line("lea_rm", LIMIT, Mem(ROW, disp=step)),
            line("jmp_j", self.some),
            place(self.slow_rest),
            line("lea_rm", LIMIT, Mem(ROW, disp=self.loop.isa.lanes)),
            place(self.some),
            line("cmp_rr", LIMIT, STOP),
            line("cmovcc_rr", CC["g"], LIMIT, STOP),
            *self._found(load=False),
            *_zeroed(),
            place(rows),
            *self.scalar.lines,
            line("inc_r", ROW),
            line("cmp_rr", ROW, LIMIT),
            line("jcc_j", CC["l"], rows),
            line("cmp_rr", ROW, STOP),
            line("jcc_j", CC["l"], enter),
            place(self.row.bail),
            line("mov_rr", RAX, ROW),
            line("jmp_j", leave),
        ]

    def _aligned(self, enter: Label) -> list[Line]:
        """The rows before results of vectors lie as is good: whole bytes of bits, lines of a cache.

        Results that go around the cache have to.
        """
        plan = self.plan
        if plan.kernel == "bitmap":
            return [
                line("test_ri", ROW, 7),
                line("jcc_j", CC["e"], enter),
                line("cmp_rr", ROW, STOP),
                line("jcc_j", CC["ge"], enter),
                line("lea_rm", LIMIT, Mem(ROW, disp=8)),
                line("and_ri", LIMIT, -8),
                line("jmp_j", self.some),
            ]
        if plan.kernel != "map" or plan.out != "int64":
            return []
        return [
            line("mov_rr", RAX, STOP),
            line("sub_rr", RAX, ROW),
            line("cmp_ri", RAX, 0 if plan.streams else _WORTH_ALIGNING),
            line("jcc_j", CC["le"], enter),
            line("mov_rm", RAX, word(State.OUT)),
            line("lea_rm", RAX, Mem(RAX, ROW, 8)),
            line("neg_r", RAX),
            line("and_ri", RAX, 63),
            line("shr_ri", RAX, 3),
            line("jcc_j", CC["e"], enter),
            line("lea_rm", LIMIT, Mem(RAX, ROW)),
            line("jmp_j", self.some),
        ]

    def _found(self, load: bool) -> list[Line]:
        """Bring what was found so far from the state, or back to it."""
        lines: list[Line] = []
        if self.plan.kernel == "mask":
            return [line("mov_ri", KEPT, 0x0101010101010101)] if load else []
        if self.plan.kernel == "indices":
            found = word(State.FOUND)
            return [line("mov_rm", KEPT, found) if load else line("mov_mr", found, KEPT)]
        first = State.COLUMNS + len(self.plan.columns)
        size = self.ends.storage.size
        keys = _UNALIGNED[size]
        for place_, register in enumerate(self.accumulators):
            home = word(first)._replace(disp=WORD * first + size * place_)
            pair: tuple[Any, ...] = (register, home) if load else (home, register)
            lines.append((VECTORS[keys[not load]], pair, None))
        return lines


#: Nearest, and no exception is told.
_MXCSR: Final = 0x1F80


def _obeys_caller(item: Instruction | Label) -> bool:
    """Whether an instruction depends on the state of the floating point unit."""
    if isinstance(item, Label) or "512" in item.key:
        return False
    name = item.key.partition("_")[0]
    return name.endswith("pd256") and not name.startswith(("vblend", "vmov", "vand", "vor", "vxor"))


#: By the size of a vector: how it is loaded and stored at any address.
_UNALIGNED: Final = {
    64: ("vmovdqu64z_xm", "vmovdqu64z_mx"),
    32: ("vmovdqu256_xm", "vmovdqu256_mx"),
}


def _without_invariants(code: list[Op]) -> list[Op]:
    """The code with what is the same for all rows left out of what it reads."""
    return [
        item._replace(operands=tuple(0 if _is_shared(o) else o for o in item.operands))
        for item in code
    ]


def _vectors(item: Op) -> int:
    """How many registers an instruction may need at once."""
    return sum(kind == "x" for kind in item.instruction.kinds) + (item.tied is not None)


def _is_shared(operand: Any) -> bool:
    return type(operand) is int and operand >= SHARED


def _unless_room(rows: int, away: Label) -> list[Line]:
    """Go away if fewer than so many rows are left."""
    return [
        line("lea_rm", RAX, Mem(ROW, disp=rows)),
        line("cmp_rr", RAX, STOP),
        line("jcc_j", CC["g"], away),
    ]


def _while_room(rows: int, again: Label) -> list[Line]:
    return [
        line("lea_rm", RAX, Mem(ROW, disp=rows)),
        line("cmp_rr", RAX, STOP),
        line("jcc_j", CC["le"], again),
    ]


def _stack(size: int) -> list[Line]:
    """Room for `size` bytes at a multiple of 64; every page is touched on the way."""
    lines: list[Line] = []
    for _ in range(size // 4096):
        lines += [line("sub_ri", RSP, 4096), line("mov_mr", Mem(RSP), RAX)]
    return [*lines, line("sub_ri", RSP, size % 4096), line("and_ri", RSP, -64)]


def _zeroed() -> list[Line]:
    """Code with SSE instructions is slow while upper parts of registers are in use."""
    return [(VECTORS["vzeroupper"], (), None)]
