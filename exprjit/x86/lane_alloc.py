"""Lane code to physical vector and mask registers: linear scan, forwards.

The code runs straight on but for branches that leave it, or go around an arm. What is the same for
all rows has its home before it, a register or a place in memory; what leaves its register for lack
of them is stored then, and loaded again before its next use. The value that is used last goes
(Belady's rule). An arm may not be done: so behind it, what was in a register before it is there, or
was stored before it; and what the arm has loaded is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from .assembler import Line
from .assembler import place as at
from .by_lane import ByLane
from .instructions import Instruction
from .lane_code import FIRST_LANE, Arm, Here, Op, Skip, operands, read, written
from .registers import Mem
from .vectors import VECTORS


class Storage(NamedTuple):
    """How vectors of an instruction set are moved: the keys, and their size in bytes."""

    move: str
    load: str
    store: str
    size: int


YMM: Final = Storage("vmovdqa256_xx", "vmovdqa256_xm", "vmovdqa256_mx", 32)
ZMM: Final = Storage("vmovdqa64z_xx", "vmovdqa64z_xm", "vmovdqa64z_mx", 64)
#: (All bits: of a block's masks some are made into one.)
_MASK: Final = Storage("kmovq_kk", "kmovq_km", "kmovq_mk", 8)


class Slots:
    """Places in the frame for what has no register; `base` is the first."""

    def __init__(self, base: Mem, size: int) -> None:
        self.base = base
        self.size = size
        self.count = 0
        self._scratch: list[Mem] = []

    def scratch(self, count: int) -> list[Mem]:
        """Places for the time being, the same for all who ask."""
        while len(self._scratch) < count:
            self._scratch.append(self.new())
        return self._scratch[:count]

    def new(self) -> Mem:
        self.count += 1
        return self.base._replace(disp=self.base.disp + self.size * (self.count - 1))


#: Where an invariant is.
Home = int | Mem

_NEVER: Final = 1 << 62


class _Class:
    """The registers of a class, and who has them."""

    def __init__(self, registers: Iterable[int], storage: Storage) -> None:
        self.free = sorted(registers, reverse=True)
        self.storage = storage
        self.location: dict[int, int] = {}
        self.slot: dict[int, Mem] = {}


class _Arm:
    """An arm that has begun.

    branch: where in the lines the branch around it is.  before: what was in registers there.
    loaded: what has been loaded since.
    """

    def __init__(self, branch: int, before: frozenset[int]) -> None:
        self.branch = branch
        self.before = before
        self.loaded: set[int] = set()


class LaneAllocator:
    """Gives registers to one piece of code."""

    def __init__(
        self,
        code: list[Op],
        homes: dict[int, Home],
        vectors: Iterable[int],
        masks: Iterable[int],
        storage: Storage,
        slots: Slots,
    ) -> None:
        self.code = code
        self.homes = homes
        self.slots = slots
        self.classes = {"x": _Class(vectors, storage), "k": _Class(masks, _MASK)}
        self.kind: dict[int, str] = {}
        self.uses: dict[int, list[int]] = {}
        for position in range(len(code) - 1, -1, -1):
            for value in read(code[position]):
                self.uses.setdefault(value, []).append(position)
        self.lines: list[Line] = []
        self.cold: list[Line] = []
        #: The arms that have begun and not ended, the outermost first.
        self.arms: list[_Arm] = []

    def run(self) -> list[Line]:
        """The code in place; what is out of the way is in `cold`."""
        for position, item in enumerate(self.code):
            self._instruction(position, item)
        return self.lines

    # One instruction. ------------------------------------------------------------------------

    def _instruction(self, position: int, item: Op) -> None:
        if isinstance(item.instruction, Here):
            self.lines.append(at(item.instruction.label))
            if item.instruction.ends_arm:
                for value in self.arms.pop().loaded:
                    self._drop(value)
            return
        if isinstance(item.instruction, Arm):
            before = frozenset(v for of in self.classes.values() for v in of.location)
            self.arms.append(_Arm(len(self.lines) - 1, before))
            return
        sources = read(item)
        for value in dict.fromkeys(sources):
            uses = self.uses[value]
            while uses and uses[-1] <= position:
                uses.pop()
        instruction, physical = self._read(item, sources)
        to = written(item)
        if item.tied is not None:
            physical[_destination(item)] = self._tie(item, sources)
            self._release(sources)
        else:
            self._release(sources)
            if to is not None and to >= FIRST_LANE:
                place = _destination(item)
                physical[place] = self._take(to, instruction.kinds[place], ())
        if isinstance(instruction, ByLane):
            self._by_lane(instruction, physical, item.tag)
        else:
            self.lines.append((instruction, tuple(physical), item.tag))
        if to is not None and to >= FIRST_LANE and not self.uses.get(to):
            self._drop(to)

    def _by_lane(self, instruction: ByLane, physical: list[int], tag: object) -> None:
        storage = self.classes["x"].storage
        lines, cold = instruction.expand(
            physical,
            lambda home, source: (VECTORS[storage.store], (home, source), tag),
            lambda to, home: (VECTORS[storage.load], (to, home), tag),
            self.slots.scratch(2),
            storage.size // 8,
            tag,
        )
        self.lines += lines
        self.cold += cold

    def _read(self, item: Op, sources: list[int]) -> tuple[Instruction | ByLane, list[Any]]:
        """The instruction with its sources in registers, or the last one in memory."""
        instruction, physical = item.instruction, list(item.operands)
        assert not isinstance(instruction, Here | Skip | Arm)
        last = _from_memory(instruction) if isinstance(instruction, Instruction) else None
        for place, (kind, role) in enumerate(
            zip(instruction.kinds, instruction.roles, strict=True)
        ):
            value = physical[place]
            if role != "r" or kind not in "xkz" or value < FIRST_LANE:
                continue
            home = self.homes.get(value)
            if isinstance(home, int):
                physical[place] = home
                continue
            of = self.classes["x" if kind == "x" else "k"]
            if value not in of.location and last is not None and place == last[0]:
                memory = home if home is not None else of.slot[value]
                instruction, physical[place] = last[1], memory
                continue
            physical[place] = self._load(value, "x" if kind == "x" else "k", sources)
        return instruction, physical

    def _tie(self, item: Op, sources: list[int]) -> int:
        """The register of the destination, with the value that is read there in it."""
        tied, to = item.tied, written(item)
        assert tied is not None
        assert to is not None
        of = self.classes["x"]
        where = of.location.get(tied)
        dies = tied not in self.homes and not self.uses.get(tied)
        if where is not None and dies and tied not in _operands(item):
            del of.location[tied]
            of.location[to] = where
            self.kind[to] = "x"
            return where
        register = self._take(to, "x", sources)
        home = self.homes.get(tied, where if where is not None else of.slot.get(tied))
        key = of.storage.load if isinstance(home, Mem) else of.storage.move
        self.lines.append((VECTORS[key], (register, home), item.tag))
        return register

    # Registers. ------------------------------------------------------------------------------

    def _take(self, value: int, kind: str, pinned: Iterable[int]) -> int:
        of = self.classes[kind]
        if not of.free:
            self._evict(of, set(pinned))
        register = of.free.pop()
        of.location[value] = register
        self.kind[value] = kind
        return register

    def _evict(self, of: _Class, pinned: set[int]) -> None:
        candidates = [value for value in of.location if value not in pinned]
        assert candidates, "an instruction needs more vector registers than there are"
        value = max(candidates, key=lambda v: self.uses[v][-1] if self.uses.get(v) else _NEVER)
        register = of.location.pop(value)
        if value not in self.homes and value not in of.slot:
            of.slot[value] = self.slots.new()
            self._store(value, (VECTORS[of.storage.store], (of.slot[value], register), None))
        of.free.append(register)

    def _store(self, value: int, item: Line) -> None:
        """Store a value before the outermost arm that it was made before, or else here."""
        for place, arm in enumerate(self.arms):
            if value in arm.before:
                self.lines.insert(arm.branch, item)
                for inner in self.arms[place:]:
                    inner.branch += 1
                return
        self.lines.append(item)

    def _load(self, value: int, kind: str, pinned: Iterable[int]) -> int:
        of = self.classes[kind]
        register = of.location.get(value)
        if register is not None:
            return register
        register = self._take(value, kind, pinned)
        if self.arms:
            self.arms[-1].loaded.add(value)
        home = self.homes.get(value)
        source = of.slot[value] if home is None else home
        self.lines.append((VECTORS[of.storage.load], (register, source), None))
        return register

    def _release(self, sources: list[int]) -> None:
        for value in dict.fromkeys(sources):
            if not self.uses.get(value):
                self._drop(value)

    def _drop(self, value: int) -> None:
        for of in self.classes.values():
            register = of.location.pop(value, None)
            if register is not None:
                of.free.append(register)


def _destination(item: Op) -> int:
    """Which operand is written."""
    return next(
        place
        for place, (kind, role, _) in enumerate(operands(item))
        if role in ("w", "rw") and kind in "xk"
    )


def _operands(item: Op) -> list[int]:
    """The vectors that an instruction reads beside the one that is tied."""
    return [operand for kind, role, operand in operands(item) if kind == "x" and role == "r"]


_memory_forms: dict[Instruction, tuple[int, Instruction] | None] = {}


def _from_memory(instruction: Instruction) -> tuple[int, Instruction] | None:
    """Which operand can be in memory, and the instruction that has it there."""
    if instruction not in _memory_forms:
        name, _, letters = instruction.key.rpartition("_")
        place = letters.rfind("x")
        key = f"{name}_{letters[:place]}m{letters[place + 1 :]}"
        found = place > 0 and instruction.roles[place] == "r" and key in VECTORS
        _memory_forms[instruction] = (place, VECTORS[key]) if found else None
    return _memory_forms[instruction]
