"""Block to physical registers: linear scan in one walk backwards, after LuaJIT's lj_asm.c.

Going backwards, a value is first met at its last use, where it is given a register, and
last met where it is made, where the register is free again.  Three things follow almost by
themselves: a two-address instruction gives its destination's register to the source that
dies there, so most moves never come to be; a value that must leave its register (none is
free, or an instruction needs just that one) is reloaded behind the instruction at hand,
and stored once, where it is made; a constant is not stored but loaded again.

Of the values that could make room the one whose next use, seen backwards, is farthest goes
(Belady's rule).  Blocks are in SSA form.  Where there is a way around some code, what both ways
expect is brought together at its fork.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

from .alternatives import FROM_MEMORY, LEA, LEA32, as_lea, can_swap, lea_operands, swapped_condition
from .assembler import Line
from .assembler import place as placed
from .block import FIRST_VIRTUAL, Block, Fork, Join, Virtual
from .instructions import INSTRUCTIONS, Instruction
from .liveness import ORDER as ORDER
from .liveness import Arrival as Arrival
from .liveness import Liveness, preferred
from .moves import MOVE, parallel_moves
from .registers import CALLEE_SAVED, Mem, negate

_LOAD: Final = INSTRUCTIONS["mov_rm"]
_BRANCH: Final = INSTRUCTIONS["jcc_j"]
_STORE: Final = INSTRUCTIONS["mov_mr"]
_NUMBER: Final = INSTRUCTIONS["mov_ri"]


class Allocation(NamedTuple):
    """Machine code of a block.

    lines: in place; cold: out of the way, behind the function's end; slots: how many
    8-byte spill slots there are; saved: callee-saved registers that are used.
    """

    lines: list[Line]
    cold: list[Line]
    slots: int
    saved: tuple[int, ...]


def allocate(
    block: Block,
    arrivals: dict[int, Arrival],
    slot_base: Mem,
    order: Sequence[int] | None = None,
) -> Allocation:
    """Give physical registers to `block`.

    arrivals: by virtual register, for every parameter.  slot_base: the first spill slot;
    the others follow at higher addresses.  order: the registers to give out, best first, at
    least five; what instructions insist on is used all the same.  By default it is `preferred`.
    """
    if order is None:
        order = preferred(block)
    allocator = _Allocator(block, arrivals, slot_base, order)
    for position in range(len(block.code) - 1, -1, -1):
        allocator.instruction(position)
    allocator.enter()
    lines = allocator.lines[::-1]
    saved = tuple(r for r in CALLEE_SAVED if allocator.touched >> r & 1)
    return Allocation(lines, allocator.cold, allocator.slots, saved)


class _Allocator:
    """The walk's state; all of it is about the point just behind the instruction at hand."""

    def __init__(
        self, block: Block, arrivals: dict[int, Arrival], slot_base: Mem, order: Sequence[int]
    ) -> None:
        self.code = block.code
        self.arrivals = arrivals
        self.slot_base = slot_base
        self.order = tuple(order)
        #: The code so far, last line first.
        self.lines: list[Line] = []
        self.cold: list[Line] = []
        self.slots = 0
        self.touched = 0
        #: Which value a register holds, and the other way round.
        self.holder: list[int | None] = [None] * FIRST_VIRTUAL
        self.location: dict[int, int] = {}
        #: Offsets of slots that no value has any more.
        self.spare: list[int] = []
        #: Where values that left their register are kept.
        self.slot: dict[int, Mem] = {v: a.home for v, a in arrivals.items() if a.home is not None}
        self.live = Liveness(self.code, arrivals)
        self.constants = self.live.constants
        self.uses = self.live.uses
        self.hints = self.live.hints
        #: For the joins whose forks are yet to come: what was in registers behind them, the
        #: register of their value, and the value of the way around.
        self.joins: list[tuple[dict[int, int], int, int]] = []
        #: What the instruction at hand needs done around it.
        self.pinned = 0
        self.before: list[tuple[int, int]] = []
        self.moves: list[tuple[int, int]] = []
        self.stores: list[tuple[Mem, int]] = []
        self.restores: list[tuple[int, int]] = []

    # Registers. ----------------------------------------------------------------------------

    def _hold(self, value: int, register: int) -> None:
        self.holder[register] = value
        self.location[value] = register
        self.touched |= 1 << register

    def _release(self, value: int) -> None:
        register = self.location.pop(value, None)
        if register is not None:
            self.holder[register] = None

    def _free(self, value: int | None, forbidden: int) -> int | None:
        """A register that holds nothing, by preference the one hinted for `value`."""
        holder = self.holder
        hint = self.hints.get(value) if value is not None else None
        if hint is not None and holder[hint] is None and not forbidden >> hint & 1:
            return hint
        first = None
        for register in self.order:
            if holder[register] is None and not forbidden >> register & 1:
                if value is None or not self.live.is_wanted(register, value, self.position):
                    return register
                if first is None:
                    first = register
        return first

    def _take(self, value: int | None, forbidden: int) -> int:
        """A register for `value` at the instruction at hand, evicting another if need be."""
        register = self._free(value, forbidden | self.pinned)
        if register is None:
            register = self._farthest(forbidden | self.pinned)
            self._evict(register)
        return register

    def _farthest(self, forbidden: int) -> int:
        best, distance = -1, 1 << 62
        for register in self.order:
            value = self.holder[register]
            if value is not None and not forbidden >> register & 1:
                previous = self._previous(value)
                if previous < distance:
                    best, distance = register, previous
        assert best >= 0, "an instruction needs more registers than there are"
        return best

    def _previous(self, value: int) -> int:
        """The last position before the instruction at hand where `value` is used or made."""
        uses = self.uses[value]
        while len(uses) > 1 and uses[-1] >= self.position:
            uses.pop()
        return uses[-1]

    def _evict(self, register: int) -> None:
        """Let the value in `register` live elsewhere before; behind, it is loaded again."""
        value = self.holder[register]
        assert value is not None
        self.restores.append((register, value))
        self._keep(value)
        self._release(value)

    def _keep(self, value: int) -> None:
        """Let there be a slot for `value`, unless it is made again."""
        if value not in self.constants and value not in self.slot:
            self.slot[value] = self._new_slot()

    def _new_slot(self) -> Mem:
        base = self.slot_base
        if self.spare:
            return base._replace(disp=heappop(self.spare))
        self.slots += 1
        return base._replace(disp=base.disp + 8 * (self.slots - 1))

    def _relocate(self, register: int, forbidden: int) -> None:
        """Free a register that the instruction insists on from a value that lives across it."""
        value = self.holder[register]
        other = self._free(None, forbidden | self.pinned)
        if other is None:
            self._evict(register)
            return
        self.moves.append((register, other))
        assert value is not None
        self._release(value)
        self._hold(value, other)
        self.pinned |= 1 << other

    # Instructions. -------------------------------------------------------------------------

    def instruction(self, position: int) -> None:
        virtual = self.code[position]
        instruction, operands, tied, reads, writes, _, _ = virtual
        if instruction is _NUMBER and operands[0] not in self.location:
            return  # Every user loads the constant itself.
        self.position = position
        for mem, _ in self.stores:
            heappush(self.spare, mem.disp)  # What is kept there is made there: it is free before.
        self.before, self.moves, self.stores, self.restores = [], [], [], []
        self.pinned = 0
        if isinstance(instruction, Join):
            self._join(virtual, instruction)
            return
        if isinstance(instruction, Fork):
            self._fork(virtual, instruction)
            return
        fixed = 0
        for register in (*instruction.reads, *instruction.writes):
            fixed |= 1 << register
        self._clear(instruction, reads, writes, fixed)
        self._write_fixed(instruction, writes)
        physical = list(operands)
        self._write_explicit(virtual, physical, fixed)
        if tied is not None:
            instruction = self._tie(virtual, physical, fixed)
        instruction = self._read_explicit(virtual, instruction, physical, fixed)
        self._read_fixed(virtual)
        self._finish(instruction, physical, virtual)

    def _join(self, virtual: Virtual, join: Join) -> None:
        """Both ways come here with the same values in the same registers."""
        value, through, around = virtual.operands
        register = self.location.get(value)
        if register is None:
            register = self._take(value, 0)
            self.touched |= 1 << register
        if value in self.slot:
            self.stores.append((self.slot[value], register))
        self._release(value)
        self.joins.append((dict(self.location), register, around))
        self._hold(through, register)
        self.lines += [self._load(evicted, to, virtual.tag) for to, evicted in self.restores]
        self.lines += [(_STORE, (mem, source), virtual.tag) for mem, source in self.stores]
        self.lines.append(placed(join.label))

    def _fork(self, virtual: Virtual, fork: Fork) -> None:
        """Bring together what the way through expects here, and what the join does.

        What is alive behind the join is here where it is there; what only the way through reads
        finds what registers are left, and is brought to where it is expected behind the fork.
        """
        expected = dict(self.location)
        here, register, around = self.joins.pop()
        if around in here:
            self.before.append((register, here[around]))
        else:
            here[around] = register
        taken = {register, *here.values()}
        loads: list[tuple[int, int]] = []
        for value, where in expected.items():
            if value in here:
                continue
            free = [where, *self.order]
            to = next((r for r in free if r not in taken), None)
            if to is None:
                loads.append((value, where))
                self._keep(value)
            else:
                here[value] = to
                taken.add(to)
        self.holder = [None] * FIRST_VIRTUAL
        self.location = {}
        for value, where in here.items():
            self._hold(value, where)
        moves = [(to, here[value]) for value, to in expected.items() if value in here]
        lines, tag = self.lines, virtual.tag
        lines += [self._load(value, to, tag) for value, to in loads]
        lines += [(move, (to, source), tag) for move, to, source in reversed(parallel_moves(moves))]
        lines.append((_BRANCH, (negate(virtual.operands[0]), fork.join.label), tag))
        lines += [(MOVE, move, tag) for move in self.before]

    def _clear(
        self,
        instruction: Any,
        reads: Sequence[int],
        writes: Sequence[int | None],
        fixed: int,
    ) -> None:
        """Free the fixed registers from values that have nothing to do there."""
        for register in instruction.writes:
            value = self.holder[register]
            if value is not None and value not in writes:
                self._relocate(register, fixed)
        for register, value in zip(instruction.reads, reads, strict=True):
            holder = self.holder[register]
            if holder is not None and holder != value and holder not in writes:
                self._relocate(register, fixed)

    def _write_fixed(self, instruction: Any, writes: Sequence[int | None]) -> None:
        for register, value in zip(instruction.writes, writes, strict=True):
            self.touched |= 1 << register
            if value is None:
                continue
            if value in self.slot:
                self.stores.append((self.slot[value], register))
            wanted = self.location.get(value)
            if wanted is not None:
                self.moves.append((wanted, register))
        for value in writes:
            if value is not None:
                self._release(value)

    def _write_explicit(self, virtual: Virtual, physical: list[Any], fixed: int) -> None:
        for place, (role, value) in enumerate(
            zip(virtual.instruction.roles, virtual.operands, strict=True)
        ):
            if role not in ("w", "rw") or type(value) is not int:
                continue
            register = self.location.get(value)
            if register is None:
                register = self._take(value, fixed)
                self.touched |= 1 << register
            if value in self.slot:
                self.stores.append((self.slot[value], register))
            self._release(value)
            physical[place] = register
            if virtual.tied is not None:
                # The other operands must not be overwritten by the move to the destination.
                self.pinned |= 1 << register

    def _tie(self, virtual: Virtual, physical: list[Any], fixed: int) -> Any:
        """Bring the source of a two-address instruction to its destination.

        Gives the instruction to use: `lea` where it saves the move.
        """
        instruction, operands, source, _, _, flags, _ = virtual
        place = instruction.roles.index("rw")
        register = physical[place]
        assert source is not None
        if can_swap(instruction) and self._is_better(operands[-1], source, register):
            source, physical[-1] = operands[-1], source
            physical[0] = swapped_condition(instruction, physical[0])
        where = self.location.get(source)
        lea = None if flags else as_lea(instruction, operands)
        if where is None:
            # It dies here.  Where it is made in a register of its own, `lea` reads it there; and
            # where it could not stay in the destination, it is brought there only now.
            hint = self.hints.get(source) if lea else None
            if hint is None or self.holder[hint] is not None or self.pinned >> hint & 1:
                hint = register
            if hint == register and self.live.is_wanted(register, source, self.position):
                other = self._free(source, self.pinned | fixed | 1 << register)
                if other is not None and not self.live.is_wanted(other, source, self.position):
                    hint = other
            self._hold(source, hint)
            where = hint
        if where != register:
            if lea is not None:
                physical.append(where)
                return lea
            self.before.append((register, where))
        return instruction

    def _is_better(self, other: int, source: int, register: int) -> bool:
        """Whether a two-address instruction had better overwrite `other` than `source`."""
        if other == source or other in self.location:
            return False
        if source in self.location:
            return True  # The other one dies here: its register can become the destination.
        if (source in self.slot) != (other in self.slot):
            return source in self.slot  # It can be read from memory.
        hint = self.hints.get(source)
        return (
            hint is not None
            and hint != register
            and self.holder[hint] is None
            and self.hints.get(other) in (None, register)
        )

    def _read_explicit(
        self, virtual: Virtual, instruction: Any, physical: list[Any], fixed: int
    ) -> Any:
        """Find registers for what is read; gives the instruction to use."""
        # Registers of values that are read are not to be given away meanwhile.
        for value in self.live.reads[self.position]:
            register = self.location.get(value)
            if register is not None:
                self.pinned |= 1 << register
        for place, (kind, role) in enumerate(
            zip(virtual.instruction.kinds, virtual.instruction.roles, strict=True)
        ):
            if kind == "r" and role == "r":
                home = None
                if physical[place] in self.slot and place == len(virtual.operands) - 1:
                    home = self._home(physical[place], instruction, fixed)
                if home is not None:
                    instruction, physical[place] = FROM_MEMORY[instruction], home
                else:
                    physical[place] = self._use(physical[place], fixed)
            elif kind == "m":
                mem = physical[place]
                if mem.base is not None and mem.base >= FIRST_VIRTUAL:
                    mem = mem._replace(base=self._use(mem.base, fixed))
                if mem.index is not None and mem.index >= FIRST_VIRTUAL:
                    mem = mem._replace(index=self._use(mem.index, fixed))
                physical[place] = mem
        return instruction

    def _home(self, value: int, instruction: Any, fixed: int) -> Mem | None:
        """Where in memory a last operand that is there had better be read.

        That is where there is no register for it any more, or where a parameter in memory is used
        but here.
        """
        if value in self.location or instruction not in FROM_MEMORY:
            return None
        home = self.slot[value]
        arrival = self.arrivals.get(value)
        in_memory = arrival is not None and arrival.register is None
        if in_memory and self.uses[value] == [-1, self.position]:
            return home
        return None if self._free(value, fixed | self.pinned) is not None else home

    def _use(self, value: int, fixed: int) -> int:
        register = self.location.get(value)
        if register is None:
            register = self._take(value, fixed)
            self._hold(value, register)
            self.pinned |= 1 << register
        return register

    def _read_fixed(self, virtual: Virtual) -> None:
        for register, value in zip(virtual.instruction.reads, virtual.reads, strict=True):
            where = self.location.get(value)
            if where is None:
                self._hold(value, register)
            elif where != register:
                self.before.append((register, where))
                self.touched |= 1 << register

    def _finish(self, instruction: Any, physical: list[Any], virtual: Virtual) -> None:
        """Add the lines: what comes before, the instruction, what comes behind; last first."""
        lines, tag = self.lines, virtual.tag
        for register, value in self.restores:
            lines.append(self._load(value, register, tag))
        if self.moves:
            for move, to, source in reversed(parallel_moves(self.moves)):
                lines.append((move, (to, source), tag))
        for mem, register in self.stores:
            lines.append((_STORE, (mem, register), tag))
        if instruction in (LEA, LEA32) and virtual.instruction is not instruction:
            lines.append((instruction, lea_operands(virtual.instruction.key, physical), tag))
        elif isinstance(instruction, Instruction):
            lines.append((instruction, tuple(physical), tag))
        else:
            here, cold = instruction.expand(*physical)
            lines.extend((item, operands, tag) for item, operands, _ in reversed(here))
            self.cold.extend((item, operands, tag) for item, operands, _ in cold)
        if self.before:
            for move, to, source in reversed(parallel_moves(self.before)):
                lines.append((move, (to, source), tag))

    def _load(self, value: int, register: int, tag: object) -> Line:
        number = self.constants.get(value)
        if number is not None:
            return _NUMBER, (register, number), tag
        return _LOAD, (register, self.slot[value]), tag

    def enter(self) -> None:
        """Bring the parameters from where they arrive to where the block expects them."""
        loads: list[Line] = []
        moves: list[tuple[int, int]] = []
        stores: list[Line] = []
        for value, (register, home) in self.arrivals.items():
            slot = self.slot.get(value)
            if slot is not None and home is None:
                stores.append((_STORE, (slot, register), None))
            where = self.location.get(value)
            if where is None:
                continue
            if register is not None:
                moves.append((where, register))
            else:
                loads.append((_LOAD, (where, home), None))
        self.lines.extend(loads)
        for move, to, source in reversed(parallel_moves(moves)):
            self.lines.append((move, (to, source), None))
        self.lines.extend(stores)
