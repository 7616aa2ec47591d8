"""Code memory: never writable and executable, freed and reused safely, whatever goes wrong.

What could kill the process runs in a child. Most of the rest runs under each policy, and under
`Sealed` both with mmap over the old page and with mremap, which older kernels need.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import os
import random
import subprocess
import sys
import textwrap
import threading
import weakref
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from exprjit.runtime import memory, pages
from exprjit.runtime.memory import Allocator, Code, CodeMemoryError
from exprjit.runtime.turn import Claim

ROOT = Path(__file__).parent.parent
PAGE = 4096

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="needs Linux on x86-64"
)


def answer(number: int) -> bytes:
    """Code of `int f(void)`: endbr64; mov eax, number; ret."""
    return b"\xf3\x0f\x1e\xfa\xb8" + number.to_bytes(4, "little") + b"\xc3"


def call(code: Code) -> int:
    result: int = ctypes.CFUNCTYPE(ctypes.c_int)(code.address)()
    return result


def content(code: Code) -> bytes:
    return ctypes.string_at(code.address, code.size)


def mappings() -> list[tuple[int, int, str]]:
    """(first, last + 1, permissions such as "r-xs") of all mappings of this process."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permission = line.split()[:2]
        first, last = span.split("-")
        found.append((int(first, 16), int(last, 16), permission))
    return found


def permissions(codes: list[int]) -> list[str]:
    """Of each address, as in "r-xs"; "" where nothing is mapped."""
    table = mappings()
    return [
        next((text for first, last, text in table if first <= address < last), "")
        for address in codes
    ]


def assert_all_free(allocator: Allocator) -> None:
    statistics = allocator.statistics()
    assert statistics.pages <= memory.SPARE_PAGES
    assert statistics[2:] == (0, statistics.pages * PAGE, 0)


POLICIES = ["sealed", "sealed by mremap", "mprotect"]


@pytest.fixture(params=POLICIES)
def allocator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Allocator:
    name, _, by_mremap = request.param.partition(" by ")
    if by_mremap:
        monkeypatch.setattr(pages, "_kernel_version", lambda: (6, 7))
    made = Allocator(name)
    if made.policy()[0] != name:
        pytest.skip(made.policy()[1])
    return made


CHILD = """
import ctypes, errno, gc, os, resource, sys, threading
from exprjit.runtime import memory
from exprjit.runtime.memory import CodeMemoryError, collect, install, policy, statistics

libc = ctypes.CDLL(None, use_errno=True)

def answer(number):
    return b"\\xf3\\x0f\\x1e\\xfa\\xb8" + number.to_bytes(4, "little") + b"\\xc3"

def call(code):
    return ctypes.CFUNCTYPE(ctypes.c_int)(code.address)()

def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

if policy()[0] == "none":
    print("skip:", policy()[1])
    sys.exit()
"""


def in_child(body: str, name: str) -> None:
    """Run CHILD and `body` in a new process under policy `name`; it must end with "done"."""
    program = CHILD + textwrap.dedent(body) + "\nprint('done')"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", program],
        cwd=ROOT,
        env={**os.environ, "EXPRJIT_MEMORY": name},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.stdout.startswith("skip:"):
        pytest.skip(done.stdout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


# The bitmaps.


def test_runs_agree_with_the_obvious_way() -> None:
    rng = random.Random(1)
    for _ in range(500):
        bits = rng.getrandbits(256) | rng.getrandbits(256) if rng.random() < 0.7 else 0
        bits |= ((1 << rng.randrange(257)) - 1) << rng.randrange(256) & memory.ALL_FREE
        text = f"{bits:b}"[::-1]
        longest = max(map(len, text.split("0")))
        assert memory.longest_run(bits) == longest
        for length in {1, longest, rng.randint(1, longest)} if longest else set():
            assert memory.first_run(bits, length) == text.index("1" * length)


# Installing and calling.


def test_code_runs_and_is_never_writable(allocator: Allocator) -> None:
    name = allocator.policy()[0]
    codes = []
    for number in range(100):
        codes.append(allocator.install(answer(number) + b"\x90" * (7 * number % 230)))
        assert set(permissions([code.address for code in codes])) == {
            "r-xs" if name == "sealed" else "r-xp"
        }
    assert [call(code) for code in codes] == list(range(100))
    assert allocator.statistics().pages < 8
    assert all(code.address % 16 == 0 for code in codes)


def test_sizes(allocator: Allocator) -> None:
    """Every size up to beyond a page, the edges of pages, and far more than a page."""
    sizes = [*range(1, 5000, 3), 4095, 4096, 4097, 8191, 8192, 8193, 100_000]
    codes = []
    for size in sizes:
        code = answer(size).ljust(size, b"\x90") if size >= 10 else bytes([size]) * size
        codes.append((code, allocator.install(code)))
    for code, installed in codes:
        assert (installed.size, content(installed)) == (len(code), code)
        assert installed.size < 10 or call(installed) == installed.size
    large = codes[-1][1]
    assert ctypes.string_at(large.address + large.size, 1) == b"\xcc"


def test_the_space_between_is_int3(allocator: Allocator) -> None:
    first, second = allocator.install(b"\xc3"), allocator.install(b"\xc3" * 17)
    home = min(first.address, second.address) & -PAGE
    assert first.address & -PAGE == second.address & -PAGE
    image = bytearray(ctypes.string_at(home, PAGE))
    for code in (first, second):
        start = code.address - home
        assert image[start : start + code.size] == b"\xc3" * code.size
        image[start : start + code.size] = b"\xcc" * code.size
    assert image == b"\xcc" * PAGE


def test_code_is_its_own_reference() -> None:
    allocator = Allocator("")
    code = allocator.install(answer(1))
    alive = weakref.ref(code)
    assert "10 bytes" in repr(code)
    with pytest.raises(AttributeError):
        code.address = 0  # type: ignore[misc]
    del code
    assert alive() is None
    assert allocator.statistics().queued == 1


def test_nothing_to_install() -> None:
    with pytest.raises(ValueError, match="no code"):
        Allocator().install(b"")


# Freeing and reuse.


def test_the_dead_become_int3_and_then_room(allocator: Allocator) -> None:
    codes = [allocator.install(answer(number) + b"\x90" * 90) for number in range(30)]
    addresses = [code.address for code in codes]
    del codes[10:20]
    assert allocator.statistics().queued == 10
    assert allocator.collect() == 10
    assert allocator.collect() == 0
    for address in addresses[10:20]:
        assert ctypes.string_at(address, 100) == b"\xcc" * 100
    new = [allocator.install(answer(number) + b"\x90" * 90) for number in range(10)]
    assert {code.address for code in new} == set(addresses[10:20])
    assert [call(code) for code in new] == list(range(10))
    assert [call(code) for code in codes] == [*range(10), *range(20, 30)]
    assert allocator.statistics().pages == 1


def test_installing_and_dropping_does_not_grow(allocator: Allocator) -> None:
    for number in range(10_000):
        allocator.install(answer(number) + b"\x90" * (number % 200))
    assert allocator.statistics().pages <= memory.SPARE_PAGES
    for number in range(20):
        allocator.install(answer(number) + b"\x90" * 10_000)
    assert allocator.statistics().pages <= memory.SPARE_PAGES + 3


def test_empty_pages_are_given_back(allocator: Allocator) -> None:
    codes = [allocator.install(answer(number) + b"\x90" * 3000) for number in range(40)]
    home = [code.address & -PAGE for code in codes]
    keep = codes[17]
    del codes
    assert allocator.statistics() == (allocator.policy()[0], 40, 40 * 3024, 40 * 1072, 39)
    assert allocator.collect() == 39
    statistics = allocator.statistics()
    assert (statistics.pages, statistics.queued) == (memory.SPARE_PAGES + 1, 0)
    assert call(keep) == 17
    assert permissions(home).count("") >= 30 - memory.SPARE_PAGES


def test_large_functions_are_given_back(allocator: Allocator) -> None:
    small, large = allocator.install(answer(1)), allocator.install(answer(2) + b"\x90" * 20_000)
    address = large.address
    assert (call(large), allocator.statistics().pages) == (2, 6)
    del large
    assert allocator.collect() == 1
    assert allocator.statistics().pages == 1
    assert permissions([address]) == [""]
    assert call(small) == 1


def test_pages_are_shared_under_random_churn(allocator: Allocator) -> None:
    """The books against a plain list: nothing overlaps, nothing is lost, space comes back."""
    rng = random.Random(3)
    live: list[tuple[bytes, Code]] = []
    for step in range(1500):
        if live and rng.random() < 0.48:
            live.pop(rng.randrange(len(live)))
        else:
            code = rng.randbytes(rng.choice([5, 16, 60, 200, 900, 5000]))
            live.append((code, allocator.install(code)))
        if step % 250 == 0:
            allocator.collect()
    assert all(content(installed) == code for code, installed in live)
    spans = sorted((installed.address, installed.size) for _, installed in live)
    assert all(a + size <= b for (a, size), (b, _) in itertools.pairwise(spans))
    live.clear()
    allocator.collect()
    assert_all_free(allocator)


class Keeper:
    """Part of a cycle with some code; its finaliser brings the cycle back to life."""

    saved: list[Keeper] = []  # noqa: RUF012

    def __init__(self, code: Code) -> None:
        self.code = code
        self.cycle = self

    def __del__(self) -> None:
        Keeper.saved.append(self)


def test_code_brought_back_to_life_by_a_finaliser_is_not_erased(allocator: Allocator) -> None:
    Keeper(allocator.install(answer(42)))
    gc.collect()
    (keeper,) = Keeper.saved
    assert allocator.statistics().queued == 1
    assert allocator.collect() == 0
    assert call(keeper.code) == 42
    Keeper.saved.clear()
    del keeper
    gc.collect()
    assert allocator.collect() == 1
    Keeper.saved.clear()


# In the middle of things.


def traced(allocator: Allocator, event: Any) -> int:
    """Run one install, and call event(n) before its n-th bytecode; how many there were.

    Of a loop, only the first rounds count.
    """
    count = 0
    rounds: Counter[tuple[str, int]] = Counter()

    def trace(frame: FrameType, kind: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != memory.__file__ or frame.f_code.co_name == "__del__":
            return None
        frame.f_trace_opcodes = True
        place = frame.f_code.co_name, frame.f_lasti
        if kind == "opcode" and rounds[place] < 3:
            rounds[place] += 1
            count += 1
            event(count)
        return trace

    previous = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for it when the tracer is set
    sys.settrace(trace)
    try:
        allocator.install(answer(1) + b"\x90" * 990)
    finally:
        sys.settrace(previous)
    return count


def test_a_finaliser_may_install_and_free_within_an_install(allocator: Allocator) -> None:
    """At every single bytecode of an install that also erases."""
    live: list[tuple[bytes, Code]] = []

    def event(number: int) -> None:
        code = answer(number) + bytes([number % 251]) * (number % 700)
        live.append((code, allocator.install(code)))
        allocator.install(code)
        if number % 7 == 0:
            del live[number % len(live)]
        if number % 50 == 0:
            allocator.collect()
            allocator.statistics()

    for _ in range(3):
        assert traced(allocator, event) > 100
        assert all(content(installed) == code for code, installed in live)
    del live[:]
    allocator.collect()
    assert_all_free(allocator)


@pytest.mark.parametrize("erase", [False, True])
def test_an_interrupt_at_any_bytecode_endangers_nobody(erase: bool) -> None:
    allocator = Allocator("mprotect")
    if allocator.policy()[0] == "none":
        pytest.skip(allocator.policy()[1])
    live: list[tuple[bytes, Code]] = []

    def interrupt(number: int) -> None:
        if number == target:
            raise KeyboardInterrupt

    target = 0
    last = traced(allocator, interrupt)
    while target <= last:
        target += 1
        for size in (target % 200 + 1, target % 90 + 1):
            code = bytes([target % 251]) * size
            live.append((code, allocator.install(code)))
        if erase:
            del live[target * 7 % len(live)]
            allocator._erase_at = 0
        with contextlib.suppress(KeyboardInterrupt):
            last = max(last, traced(allocator, interrupt))
        # Python delivers signals after calls and jumps, the tracer in the middle of clean-up too.
        allocator._turn.__init__()
    assert all(content(installed) == code for code, installed in live)
    assert allocator.collect() >= 0


@pytest.mark.parametrize("name", ["sealed", "mprotect"])
def test_threads_install_and_free_while_another_runs_in_the_page(name: str) -> None:
    in_child(
        """
        # mov ecx, 200000; loop: dec ecx; jnz loop; mov eax, 42; ret: without the interpreter lock
        spin = install(b"\\xb9\\x40\\x0d\\x03\\x00\\xff\\xc9\\x75\\xfc\\xb8*\\0\\0\\0\\xc3")
        stop = False
        failures = []

        def churn(seed):
            for number in range(seed, seed + 400):
                codes = [install(answer(number + i) + b"\\x90" * 37) for i in range(3)]
                if [call(code) for code in codes] != [number, number + 1, number + 2]:
                    failures.append(number)
                if number % 40 == 0:
                    collect()

        def run():
            while not stop:
                if call(spin) != 42:
                    failures.append("spin")

        sys.setswitchinterval(1e-4)
        runner = threading.Thread(target=run)
        runner.start()
        others = [threading.Thread(target=churn, args=(1000 * i,)) for i in range(3)]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join()
        stop = True
        runner.join()
        assert failures == []
        assert spin.address & -4096 == install(answer(1)).address & -4096
        assert statistics().pages <= 8, statistics()
        """,
        name,
    )


@pytest.mark.parametrize("name", ["sealed", "mprotect"])
def test_parent_and_child_do_not_disturb_each_other(name: str) -> None:
    in_child(
        """
        import warnings
        warnings.simplefilter("ignore")  # 3.12 warns of forks in a process with threads
        codes = [install(answer(number)) for number in range(20)]
        stop = False

        def churn():
            while not stop:
                install(answer(5))

        sys.setswitchinterval(1e-5)
        others = [threading.Thread(target=churn) for _ in range(2)]
        for thread in others:
            thread.start()
        for _ in range(40):
            child = os.fork()
            if not child:
                del codes[5:15]
                collect()
                new = [install(answer(100 + number)) for number in range(10)]
                right = [call(code) for code in codes] == [*range(5), *range(15, 20)]
                right &= [call(code) for code in new] == list(range(100, 110))
                os._exit(0 if right else 1)
            new = [install(answer(200 + number)) for number in range(10)]
            assert [call(code) for code in new] == list(range(200, 210))
            assert wait(child) == 0
            assert [call(code) for code in codes] == list(range(20))
        stop = True
        for thread in others:
            thread.join()

        # Once: what was dropped before may be erased by the same installation.
        child = None

        class Forker:
            def __del__(self):
                global child
                if child is None:
                    child = os.fork()

        # A fork from within an install: both go on with it.
        real = memory._allocator._choice[0]
        class Policy:
            name, map, unmap = real.name, real.map, real.unmap
            def replace(self, address, content):
                Forker()
                real.replace(address, content)
        memory._allocator._choice = (Policy(), *memory._allocator._choice[1:])
        assert call(install(answer(9))) == 9
        memory._allocator._choice = (real, *memory._allocator._choice[1:])
        assert call(install(answer(10))) == 10
        threads = [threading.Thread(target=install, args=(answer(3),))]
        threads[0].start()
        threads[0].join()
        if child == 0:
            os._exit(0)
        assert wait(child) == 0
        """,
        name,
    )


def test_a_child_that_python_was_not_told_about() -> None:
    """As under uWSGI: the lock and the books are left as some other thread had them."""
    allocator = Allocator("")
    code = allocator.install(answer(1))
    allocator.after_fork_in_child()
    assert call(allocator.install(answer(2))) == 2
    claim = Claim(allocator._turn)
    other = threading.Thread(target=claim.take)
    other.start()
    other.join()
    allocator.after_fork_in_child()
    assert call(allocator.install(answer(3))) == 3
    assert call(code) == 1
    del code
    assert allocator.collect() == 2
    assert allocator.statistics().pages == 1


# What sealing promises.


def test_sealed_code_cannot_be_changed() -> None:
    in_child(
        """
        code = install(answer(42))
        page = ctypes.c_void_p(code.address & -4096)

        def attack():
            for protection in (3, 7, 2):
                assert libc.mprotect(page, ctypes.c_size_t(4096), protection) == -1
                assert ctypes.get_errno() == errno.EACCES
            with open("/proc/self/mem", "r+b", buffering=0) as mem:
                mem.seek(code.address + 5)
                try:
                    mem.write(b"\\x07")
                except OSError:
                    pass
                else:
                    raise AssertionError("written")
            for fd in os.listdir("/proc/self/fd"):
                path = f"/proc/self/fd/{fd}"
                assert not (os.path.exists(path) and "exprjit" in os.readlink(path))
            # The kernel's own name for the file: root may open it, but not write.
            path = f"/proc/self/map_files/{page.value:x}-{page.value + 4096:x}"
            try:
                with open(path, "r+b", buffering=0) as file:
                    file.write(b"\\x07")
            except OSError:
                pass
            else:
                raise AssertionError("written through map_files")

        attack()
        child = os.fork()
        if not child:
            try:
                attack()
            except BaseException as error:
                print(error)
                os._exit(1)
            os._exit(0)
        assert wait(child) == 0
        assert call(code) == 42
        """,
        "sealed",
    )


def test_under_memory_deny_write_execute() -> None:
    body = """
        if libc.prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE
            print("skip: no PR_SET_MDWE")
            sys.exit()
        """
    works = body + "code = install(answer(42)); assert call(code) == 42"
    in_child(works.replace("\n        ", "\n"), "sealed")
    # The question is asked when the scratch page is tried out, so it must be asked afresh.
    refused = body + (
        "fresh = memory.Allocator('mprotect')\n"
        "assert fresh.policy()[0] == 'none' and 'EACCES' in fresh.policy()[1], fresh.policy()"
    )
    in_child(refused.replace("\n        ", "\n"), "sealed")


# When something fails.


@pytest.mark.parametrize(
    ("name", "limit", "number"),
    [
        ("sealed", "NOFILE", "EMFILE"),
        ("sealed", "FSIZE", "EFBIG"),
        ("sealed", "AS", "ENOMEM"),
        ("mprotect", "AS", "ENOMEM"),
    ],
)
def test_a_failing_install_changes_nothing(name: str, limit: str, number: str) -> None:
    in_child(
        f"""
        codes = [install(answer(number)) for number in range(100)]
        before, opened = statistics(), len(os.listdir("/proc/self/fd"))
        large = [answer(1).ljust(size, b"\\x90") for size in (4090, 5000, 200_000, 4090)]
        limits = resource.getrlimit(resource.RLIMIT_{limit})
        low = {{"NOFILE": 3, "FSIZE": 1000}}.get("{limit}")
        if low is None:
            with open("/proc/self/statm") as file:
                low = int(file.read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_{limit}, (low, limits[1]))
        reasons = []
        for code in large:
            try:
                install(code)
            except CodeMemoryError as error:
                reasons.append(str(error))
        # Shared pages too, where replacing one needs what is short.
        for _ in range(3):
            try:
                install(answer(1))
            except CodeMemoryError as error:
                reasons.append(str(error))
        works = [call(code) for code in codes]
        resource.setrlimit(resource.RLIMIT_{limit}, limits)
        assert len(reasons) >= 4 and all("({number})" in reason for reason in reasons), reasons
        assert works == [call(code) for code in codes] == list(range(100))
        collect()
        assert statistics() == before
        new = [install(answer(number).ljust(4090, b"\\x90")) for number in range(5)]
        assert [call(code) for code in new] == list(range(5))
        assert len(os.listdir("/proc/self/fd")) == opened
        """,
        name,
    )


def test_a_shortage_at_the_first_install_is_not_the_last_word() -> None:
    in_child(
        """
        fresh = memory.Allocator("")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            fresh.install(answer(1))
        except CodeMemoryError as error:
            reason = str(error)
        unknown = fresh.policy()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert "EMFILE" in reason and unknown == ("none", reason)
        assert fresh.policy()[0] == "sealed"
        """,
        "sealed",
    )


def test_a_failing_erasure_stays_queued(
    allocator: Allocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise CodeMemoryError("mmap: Cannot allocate memory (ENOMEM)", 12)

    codes = [allocator.install(answer(number) + b"\x90" * 900) for number in range(60)]
    codes.append(allocator.install(answer(60) + b"\x90" * 9000))
    before = allocator.statistics()
    policy, _ = allocator._tools()
    with monkeypatch.context() as patch:
        patch.setattr(policy, "replace", fail)
        patch.setattr(policy, "unmap", fail)
        del codes[10:]
        assert allocator.collect() == 0
        assert allocator.statistics() == (*before[:4], 51)
        with pytest.raises(CodeMemoryError):
            allocator.install(answer(1) + b"\x90" * 50)
    assert [call(code) for code in codes] == list(range(10))
    assert allocator.collect() == 51
    assert allocator.statistics()[2] == 10 * 912
    assert call(allocator.install(answer(7))) == 7


def test_mappings_are_left_for_python(allocator: Allocator) -> None:
    """At the system's limit of mappings every allocation of the process would fail."""
    allocator.policy()
    assert 1000 < allocator._most < int(Path("/proc/sys/vm/max_map_count").read_text())
    allocator._most = 5
    codes = [allocator.install(answer(number) + b"\x90" * 3000) for number in range(4)]
    codes.append(allocator.install(answer(4) + b"\x90" * 5000))
    for size in (3000, 5000):
        with pytest.raises(CodeMemoryError, match="there are 5 mappings of code"):
            allocator.install(b"\x90" * size)
    codes.append(allocator.install(answer(5)))
    assert [call(code) for code in codes] == list(range(6))
    codes.pop(4)
    assert call(allocator.install(answer(6) + b"\x90" * 5000)) == 6


# The choice of the policy.


def test_the_best_policy_is_chosen_and_why_not() -> None:
    name, reason = Allocator("").policy()
    assert (name == "sealed") == (reason == "")


def test_the_next_best(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: pages.Kernel) -> Any:
        raise CodeMemoryError("mmap: Operation not permitted (EPERM)", 1)

    monkeypatch.setitem(pages.POLICIES, "sealed", refuse)
    allocator = Allocator("")
    assert allocator.policy() == ("mprotect", "sealed: mmap: Operation not permitted (EPERM)")
    assert call(allocator.install(answer(3))) == 3
    monkeypatch.setitem(pages.POLICIES, "mprotect", refuse)
    allocator = Allocator("")
    reason = "sealed: mmap: Operation not permitted (EPERM); mprotect: mmap: Operation not"
    assert allocator.policy()[0] == "none"
    assert allocator.policy()[1].startswith(reason)
    with pytest.raises(CodeMemoryError, match="sealed: mmap: Operation not permitted"):
        allocator.install(answer(3))
    assert allocator.collect() == 0


def test_memory_files_without_the_flag_of_newer_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pages.Kernel.memory_file

    def old(kernel: pages.Kernel, flags: int) -> int:
        if flags & pages.MFD_EXEC:
            raise CodeMemoryError("memfd_create: Invalid argument (EINVAL)", 22)
        return real(kernel, flags)

    monkeypatch.setattr(pages.Kernel, "memory_file", old)
    if Allocator("sealed").policy()[0] == "none":
        pytest.skip(Allocator("sealed").policy()[1])
    assert call(Allocator("sealed").install(answer(3))) == 3


def test_a_scratch_page_that_answers_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages.Kernel, "run", lambda kernel, address: 41)
    assert Allocator("mprotect").policy() == (
        "none",
        "EXPRJIT_MEMORY=mprotect; mprotect: a scratch page answered [41, 41] instead of [42, 7]",
    )


def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPRJIT_MEMORY", "mprotect")
    assert Allocator().policy() == ("mprotect", "EXPRJIT_MEMORY=mprotect")
    monkeypatch.setenv("EXPRJIT_MEMORY", "none")
    allocator = Allocator()
    assert allocator.statistics() == ("", 0, 0, 0, 0)
    assert allocator.policy() == ("none", "EXPRJIT_MEMORY=none")
    with pytest.raises(CodeMemoryError, match=r"^EXPRJIT_MEMORY=none$"):
        allocator.install(answer(1))
    assert allocator.statistics() == ("none", 0, 0, 0, 0)
    monkeypatch.setenv("EXPRJIT_MEMORY", "both")
    for use in (Allocator().policy, lambda: Allocator().install(b"\xc3")):
        with pytest.raises(ValueError, match="EXPRJIT_MEMORY is 'both'; it can be sealed, mprot"):
            use()
    with pytest.raises(ValueError, match="EXPRJIT_MEMORY is 'both'"):
        Allocator("both")


@pytest.mark.parametrize(
    ("target", "value", "reason"),
    [
        ("sys.platform", "darwin", "code memory needs Linux, not darwin"),
        ("sys.maxsize", 2**31 - 1, "code memory needs x86-64, not x86_64 with 32-bit pointers"),
        ("ctypes.PyDLL", None, "the C library cannot be called: 'NoneType' object is not callable"),
    ],
)
def test_other_systems(
    monkeypatch: pytest.MonkeyPatch, target: str, value: object, reason: str
) -> None:
    monkeypatch.setattr(target, value)
    policy = Allocator("").policy()
    monkeypatch.undo()
    assert policy == ("none", reason)


def test_nothing_happens_at_shutdown() -> None:
    in_child(
        """
        import atexit
        kept = [install(answer(number)) for number in range(50)]
        class Cycle:
            def __init__(self):
                self.me, self.code = self, install(answer(1))
            def __del__(self):
                self.code = install(answer(2))
        cycle = Cycle()
        sys.kept = [install(answer(number) * 1000) for number in range(3)]
        atexit.register(lambda: install(answer(2)))
        """,
        "",
    )
