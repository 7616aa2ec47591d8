"""Systems that refuse: hardened processes, seccomp filters, exhausted limits, no memory left.

Each test is a child process that puts itself into that place for real. Wherever machine code cannot
be had the interpreter answers and the function says what was refused; where it was only a shortage,
the next compilation is machine code again.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="needs Linux on x86-64",
)

PRELUDE = """
import ctypes, errno, gc, os, random, resource, signal, struct, sys
import exprjit
from exprjit.runtime import cpu, memory

libc = ctypes.CDLL(None, use_errno=True)

# What the parser and ctypes load and make at their first use is not our subject.
exprjit.evaluate("(1 + 2) ** 3 // 4")

class Structure(ctypes.Structure):
    _fields_ = (("field", ctypes.c_int),)

def skip(reason):
    print("skip:", reason)
    sys.exit()

def same(got, wanted):
    assert got == wanted, f"{got} and not {wanted}"

def files():
    "How many files are open."
    return len(os.listdir("/proc/self/fd"))

def executable():
    "Where the mappings are that can be executed, as the kernel lists them."
    with open("/proc/self/maps") as maps:
        lines = [line.split(maxsplit=5) for line in maps]
    assert not any("w" in line[1] and "x" in line[1] for line in lines), lines
    return {line[0] for line in lines if "x" in line[1]}

def answers(f):
    "f is a function of SOURCE in some engine, and answers and fails as it should."
    same([f(7, 2), f(-7, 2), f(x=9, y=-1)], [7, 1, -5])
    for wrong, kind in ((lambda: f(1, 0), ZeroDivisionError), (lambda: f(2**63, 1), OverflowError)):
        try:
            wrong()
        except kind as error:
            assert isinstance(error, exprjit.ExprError)
        else:
            raise AssertionError(f)

SOURCE = "x / y + 4"

# Its code is larger than a page.
LARGE = "x" + "".join(f" + (x ^ {n}) * y" for n in range(300))
LARGE_ANSWER = 2 + sum((2 ^ n) * 3 for n in range(300))  # for 2 and 3

def interpreted(*reasons, source=SOURCE):
    "Now a function is interpreted, and says why, for these reasons; asking for more is refused."
    f = exprjit.compile(source)
    assert f.engine == "interpreter", f
    assert all(reason in f.why_not_jit for reason in reasons), f.why_not_jit
    try:
        exprjit.compile(source, backend="jit")
    except exprjit.JitUnavailableError as error:
        assert all(reason in str(error) for reason in reasons), error
    else:
        raise AssertionError("machine code")
    return f

def compiled(source=SOURCE):
    "Now a function is machine code."
    f = exprjit.compile(source)
    same((f.engine, f.why_not_jit), ("jit", None))
    return f

def forget():
    "Drop the functions that nobody holds."
    exprjit.cache_clear()
    gc.collect()
"""

# seccomp(2): system calls of x86-64 fail with an error, all of them or those of which an argument
# has a bit set. The numbers are those of linux/filter.h, seccomp.h, audit.h and the system calls.
FILTER = """
LOAD, EQUAL, BITS, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
MMAP, MPROTECT, MREMAP, MEMFD_CREATE = 9, 10, 25, 319
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38

def refuse(*rules):
    "Each rule is a system call, the error it gives, and if not always, (argument, bits)."
    code = []

    def add(operation, value, if_true=0, if_false=0):
        code.append(struct.pack("=HBBI", operation, if_true, if_false, value))

    for number, error, *condition in rules:
        add(LOAD, 0)
        add(EQUAL, number, 0, 3 if condition else 1)
        for argument, bits in condition:
            add(LOAD, 16 + 8 * argument)
            add(BITS, bits, 0, 1)
        add(RETURN, FAIL | error)
    add(RETURN, ALLOW)
    text = ctypes.create_string_buffer(b"".join(code))
    program = struct.pack("=HxxxxxxQ", len(code), ctypes.addressof(text))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0):
        skip(f"no seccomp filters: {os.strerror(ctypes.get_errno())}")

PROT_EXEC = 4
NO_CODE = [
    (MMAP, errno.EPERM, (2, PROT_EXEC)),
    (MPROTECT, errno.EACCES, (2, PROT_EXEC)),
    (MREMAP, errno.EPERM),
]
NO_MEMORY_FILES = [(MEMFD_CREATE, errno.EPERM)]
"""

LIMITS = """
def size():
    "Bytes of address space."
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * 4096

def lower(name, value=None):
    "Lower a limit of this process; the way back. Without a value: no more than there is now."
    number = getattr(resource, "RLIMIT_" + name)
    before = resource.getrlimit(number)
    resource.setrlimit(number, (size() if value is None else value, before[1]))
    return lambda: resource.setrlimit(number, before)

def provide():
    "Give Python memory of its own, so that it is mmap which fails, and not everything else."
    nested = []
    for _ in range(700):
        nested = [nested]
    repr(nested)  # the stack grows
    small, large = [(n,) for n in range(300_000)], [bytes(20_000) for _ in range(400)]
    # What is kept keeps the arenas and the heap from going back to the system.
    return small[::3000], large[-1]
"""


@pytest.fixture
def run(child: Callable[..., str]) -> Callable[..., None]:
    """Runs a body after the preludes in a child, which may say why it has to be skipped."""

    def run_body(*parts: str, **environment: str) -> None:
        program = PRELUDE + "".join(map(textwrap.dedent, parts)) + "\nprint('done')"
        out = child(program, **environment)
        if out.startswith("skip:"):
            pytest.skip(out)
        assert out == "done\n"

    return run_body


# Processes that may not write code. --------------------------------------------------------------


def test_under_memory_deny_write_execute(run: Callable[..., None]) -> None:
    """PR_SET_MDWE, which is systemd's MemoryDenyWriteExecute: nothing executable was writable."""
    run("""
    PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
    if libc.prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0):
        skip(f"no PR_SET_MDWE: {os.strerror(ctypes.get_errno())}")
    f = compiled()
    answers(f)
    same(memory.policy(), ("sealed", ""))
    for again in range(3):
        many = [exprjit.compile(f"x * {n} ^ y") for n in range(100)]
        assert [g(3, again) for g in many] == [3 * n ^ again for n in range(100)]
        assert {g.engine for g in many} == {"jit"}
        del many
        forget()
        assert memory.collect() >= 100
    large = compiled(LARGE)
    assert large(2, 3) == LARGE_ANSWER
    answers(exprjit.compile(SOURCE, lazy=True))
    answers(f)
    # The process really is one of those: the article's own way is refused.
    fresh = memory.Allocator("mprotect")
    assert fresh.policy()[0] == "none" and "(EACCES)" in fresh.policy()[1], fresh.policy()
    """)


def test_a_filter_that_allows_no_executable_memory(run: Callable[..., None]) -> None:
    run(
        FILTER,
        """
        opened, mapped = files(), executable()
        refuse(*NO_CODE)
        reasons = "mmap: Operation not permitted (EPERM)", "mprotect: Permission denied (EACCES)"
        f = interpreted(*reasons)
        answers(f)
        for options in ({"verify": True}, {"lazy": True}, {"overflow": "raise"}):
            g = exprjit.compile(SOURCE, **options)
            answers(g)
            assert g.engine == "interpreter" and all(r in g.why_not_jit for r in reasons), g
        for attribute in ("asm", "code", "checked_address"):
            try:
                getattr(f, attribute)
            except exprjit.ExprValueError as error:
                assert "mmap" in str(error), error
            else:
                raise AssertionError(attribute)
        assert memory.policy()[0] == "none"
        same(memory.collect(), 0)
        same(memory.statistics(), ("none", 0, 0, 0, 0))
        same((files(), executable()), (opened, mapped))
        """,
    )


@pytest.mark.parametrize(
    ("policy", "rules", "reason"),
    [
        ("sealed", "NO_CODE", "mmap: Operation not permitted (EPERM)"),
        ("sealed", "NO_MEMORY_FILES", "memfd_create: Operation not permitted (EPERM)"),
        ("mprotect", "NO_CODE", "mprotect: Permission denied (EACCES)"),
    ],
)
def test_a_filter_that_comes_later(
    policy: str, rules: str, reason: str, run: Callable[..., None]
) -> None:
    """The functions that there are still run; new ones are interpreted; dropping is clean."""
    run(
        FILTER,
        LIMITS,
        f"rules, reason = {rules}, {reason!r}",
        """
        if memory.policy()[0] == "none":
            skip(memory.policy()[1])
        many = [compiled(f"x * {n} / y") for n in range(150)]
        large = compiled(LARGE)
        lazy = exprjit.compile("x + 1", lazy=True)
        assert lazy(1) == 2
        forget()
        memory.collect()
        opened, mapped, before = files(), executable(), memory.statistics()
        refuse(*rules)

        def works():
            assert [f(3, 2) for f in many] == [3 * n // 2 for n in range(len(many))]
            assert {f.engine for f in many} <= {"jit"}

        def fails(f):
            try:
                f(1, 0)
            except ZeroDivisionError as error:
                assert "division by zero" in str(error)
            else:
                raise AssertionError(f)

        works()
        fails(many[7])
        for n in range(5):
            f = interpreted(reason, source=f"x / y + {n}")
            assert f(7, 2) == 3 + n
            fails(f)
        assert [lazy(n) for n in range(4)] == [1, 2, 3, 4]
        # Nothing stays behind of what was refused.
        taken = size()
        for _ in range(1000):
            try:
                memory.install(bytes([0xC3]) * 5000)
            except memory.CodeMemoryError as error:
                assert reason in str(error), error
            else:
                raise AssertionError("installed")
        assert size() < taken + 2**22
        same((memory.statistics(), files(), executable()), (before, opened, mapped))
        assert large(2, 3) == LARGE_ANSWER
        # Whole pages can be given back; nothing can be written over others, so they stay queued.
        del large, f
        del many[40:]
        forget()
        erased = memory.collect()
        assert 1 <= erased < 111, erased
        same(memory.statistics().queued, 111 - erased)
        works()
        many.clear()
        forget()
        assert memory.collect() >= 0
        assert memory.statistics().queued <= 150
        answers(interpreted(reason))
        same(files(), opened)
        """,
        EXPRJIT_MEMORY=policy,
    )


def test_a_filter_that_allows_no_memory_files(run: Callable[..., None]) -> None:
    run(
        FILTER,
        """
        refuse(*NO_MEMORY_FILES)
        f = compiled()
        answers(f)
        reason = "sealed: memfd_create: Operation not permitted (EPERM)"
        same(memory.policy(), ("mprotect", reason))
        many = [compiled(f"x ^ {n}") for n in range(100)]
        assert [g(1) for g in many] == [1 ^ n for n in range(100)]
        executable()
        del many
        forget()
        same(memory.collect(), 100)
        answers(f)
        answers(compiled())
        """,
    )


# Limits. -----------------------------------------------------------------------------------------

SHORTAGES = [
    ("NOFILE", 3, "memfd_create: Too many open files (EMFILE)"),
    ("FSIZE", 0, "write: File too large (EFBIG)"),
    ("FSIZE", 4095, "write: File too large (EFBIG)"),
    ("AS", None, "mmap: Cannot allocate memory (ENOMEM)"),
]
shortage = pytest.mark.parametrize(
    ("limit", "value", "reason"), SHORTAGES, ids=[f"{name}-{at}" for name, at, _ in SHORTAGES]
)


@shortage
def test_a_shortage_at_the_first_compilation(
    limit: str, value: int | None, reason: str, run: Callable[..., None]
) -> None:
    run(
        LIMITS,
        f"limit, value, reason = {limit!r}, {value}, {reason!r}",
        """
        # Else the kernel would end the process that writes beyond the limit.
        assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
        provided = provide() if limit == "AS" else None
        opened, mapped = files(), executable()
        cpu.features()
        before = memory.statistics()
        lift = lower(limit, value)
        for _ in range(3):
            answers(interpreted(reason))
        lazy = exprjit.compile("x + 1", lazy=True)
        assert [lazy(n) for n in range(4)] == [1, 2, 3, 4]
        after = memory.statistics()
        lift()
        same((after, files(), executable()), (before, opened, mapped))
        if memory.policy()[0] == "none":
            skip(memory.policy()[1])
        # The same text, too: an answer in want is not what a cache keeps.
        answers(compiled())
        answers(exprjit.compile(SOURCE, backend="jit"))
        same(memory.policy(), ("sealed", ""))
        same(files(), opened)
        """,
        EXPRJIT_MEMORY="",
    )


@shortage
def test_a_shortage_at_a_later_compilation(
    limit: str, value: int | None, reason: str, run: Callable[..., None]
) -> None:
    run(
        LIMITS,
        f"limit, value, reason = {limit!r}, {value}, {reason!r}",
        """
        if memory.policy()[0] != "sealed":
            skip(memory.policy()[1])
        many = [compiled(f"x + {n} * y") for n in range(100)]
        # It needs new pages, which is what may be short.
        exprjit.compile(LARGE)
        forget()
        memory.collect()
        provided = provide() if limit == "AS" else None
        opened, mapped, before = files(), executable(), memory.statistics()
        lift = lower(limit, value)
        for _ in range(2):
            assert interpreted(reason, source=LARGE)(2, 3) == LARGE_ANSWER
        assert [f(2, 3) for f in many] == [2 + 3 * n for n in range(100)]
        same(memory.statistics(), before)
        # Where room in a shared page is enough there may be machine code even now.
        small = [exprjit.compile(f"x * {n} - y") for n in range(5)]
        assert [f(2, 3) for f in small] == [2 * n - 3 for n in range(5)]
        assert all(f.engine == "jit" or reason[-8:] in f.why_not_jit for f in small), small
        del small, many[50:]
        forget()
        memory.collect()
        lift()
        memory.collect()
        same(files(), opened)
        assert executable() <= mapped
        same(memory.statistics().queued, 0)
        assert memory.statistics().used < before.used
        assert compiled(LARGE)(2, 3) == LARGE_ANSWER
        answers(compiled())
        many += [compiled(f"x + {n} * y") for n in range(50, 100)]
        assert [f(2, 3) for f in many] == [2 + 3 * n for n in range(100)]
        """,
    )


def test_room_for_one_page_is_enough(run: Callable[..., None]) -> None:
    run(
        LIMITS,
        """
        lift = lower("FSIZE", 4096)
        if memory.policy()[0] != "sealed":
            skip(memory.policy()[1])
        answers(compiled())
        large = interpreted("write: File too large (EFBIG)", source=LARGE)
        assert large(2, 3) == LARGE_ANSWER
        lift()
        assert compiled(LARGE)(2, 3) == LARGE_ANSWER
        """,
    )


def test_a_shortage_at_the_second_call_of_a_lazy_function(run: Callable[..., None]) -> None:
    run(
        LIMITS,
        """
        if memory.policy()[0] != "sealed":
            skip(memory.policy()[1])
        compiled("x")
        lazy, required = [
            exprjit.compile(SOURCE, lazy=True, backend=backend) for backend in ("auto", "jit")]
        before = memory.statistics()
        lift = lower("FSIZE", 0)
        for _ in range(3):
            answers(lazy)
        same(lazy.engine, "interpreter")
        assert "write: File too large (EFBIG)" in lazy.why_not_jit, lazy.why_not_jit
        same(required(7, 2), 7)
        try:
            required(7, 2)
        except exprjit.JitUnavailableError as error:
            assert "write: File too large (EFBIG)" in str(error), error
        else:
            raise AssertionError("machine code")
        same(memory.statistics(), before)
        lift()
        answers(compiled())
        answers(lazy)
        """,
    )


def test_a_lazy_function_is_compiled_when_a_shortage_is_over(run: Callable[..., None]) -> None:
    run(
        LIMITS,
        """
        if memory.policy()[0] != "sealed":
            skip(memory.policy()[1])
        compiled("x")
        f = exprjit.compile(SOURCE, lazy=True)
        lift = lower("FSIZE", 0)
        answers(f)
        lift()
        for _ in range(3):
            f = exprjit.compile(SOURCE, lazy=True)
            answers(f)
        same((f.engine, f.why_not_jit), ("jit", None))
        """,
    )


def test_no_files_for_the_first_formula_of_all(child: Callable[..., str]) -> None:
    """Not even the grammar can be read: that is an error, and not the last word."""
    out = child("""
    import resource
    import exprjit
    from exprjit.runtime import memory

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    for _ in range(3):
        try:
            assert exprjit.compile("x / 2")(9) == 4
        except OSError as error:
            assert "Too many open files" in str(error)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    f = exprjit.compile("x / 2")
    assert f(9) == 4
    assert f.engine == "jit" or memory.policy()[0] == "none", f.why_not_jit
    print("done")
    """)
    assert out == "done\n"


@pytest.mark.parametrize("limit", ["NOFILE", "AS"])
def test_a_shortage_before_anything_is_loaded(limit: str, child: Callable[..., str]) -> None:
    """ctypes cannot be loaded, the processor cannot be read: for now."""
    out = child(
        LIMITS
        + textwrap.dedent(f"""
    import resource, sys
    import exprjit
    from exprjit.runtime import cpu, memory

    exprjit.evaluate("(1 + 2) ** 3 // 4")
    assert "ctypes" not in sys.modules
    provided = provide()
    lift = lower({limit!r}, {3 if limit == "NOFILE" else None})
    for _ in range(3):
        f = exprjit.compile("x / 2")
        assert (f(9), f.engine) == (4, "interpreter"), f
        # Which step is the first to fail depends on how much is left.
        words = ("ctypes", "memory", "map segment")
        assert any(word in f.why_not_jit for word in words), f.why_not_jit
    lift()
    f, native = exprjit.compile("x / 2"), exprjit.compile("x / 3")
    if memory.policy()[0] != "none":
        assert (f.engine, f.why_not_jit) == ("jit", None), f.why_not_jit
        assert type(f) is type(native)
        assert type(f).__name__ == "Function", type(f)
    assert (f(9), native(9)) == (4, 3)
    cpu._detected, seen = None, cpu.features()
    assert cpu.features() == seen
    print("done")
    """)
    )
    assert out == "done\n"


# No memory. --------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["sealed", "mprotect"])
def test_out_of_memory_at_each_allocation_of_an_installation(
    policy: str, run: Callable[..., None]
) -> None:
    """From the moment when there is code to the moment when there is a function.

    Before that nothing of ours is in use, and some versions of Python crash where a function cannot
    be made (PyFunction_New).
    """
    run(
        """
        try:
            from _testcapi import remove_mem_hooks, set_nomemory
        except ImportError as error:
            skip(error)
        if memory.policy()[0] == "none":
            skip(memory.policy()[1])
        answers(compiled())
        install = memory.install
        number = None

        def failing(code):
            if number is not None:
                set_nomemory(number, number + 1)
            return install(code)

        memory.install = failing
        kept, refused, unanswered, opened = {}, 0, 0, files()
        rng = random.Random(1)
        for attempt in range(140):
            f = None
            number = attempt
            try:
                f = exprjit.compile(f"x / y + {attempt}")
                remove_mem_hooks()
            # The second is what ctypes makes of the first.
            except (MemoryError, ctypes.ArgumentError):
                remove_mem_hooks()
                unanswered += 1
            number = None
            if f is None:
                f = exprjit.compile(f"x / y + {attempt}", backend="jit")
            elif f.engine == "interpreter":
                assert "out of memory (ENOMEM)" in f.why_not_jit, f.why_not_jit
                refused += 1
            kept[attempt] = f
            assert f(7, 2) == 3 + attempt
            if attempt % 3:
                # The dead are erased in the attempts to come.
                del kept[rng.choice(list(kept))], f
                exprjit.cache_clear()
        assert refused > 20 and unanswered > 2, (refused, unanswered)
        assert all(f(7, 2) == 3 + n for n, f in kept.items())
        # A file is not closed where there is no memory even for that.
        assert files() - opened <= 3, files()
        fresh = [compiled(f"x * y + {n}") for n in range(200)]
        assert [f(7, 2) for f in fresh] == [14 + n for n in range(200)]
        assert all(f(7, 2) == 3 + n for n, f in kept.items())
        executable()
        del fresh
        forget()
        memory.collect()
        same(memory.statistics().queued, 0)
        assert memory.statistics().pages < 40
        answers(compiled())
        """,
        EXPRJIT_MEMORY=policy,
    )


# The switch. -------------------------------------------------------------------------------------


def test_machine_code_can_be_forbidden(child: Callable[..., str]) -> None:
    program = """
    import json
    import exprjit
    from exprjit.runtime import memory

    f = exprjit.compile("x+4")
    lazy, verified = exprjit.compile("x+4", lazy=True), exprjit.compile("x+4", verify=True)
    try:
        exprjit.compile("x+4", backend="jit")
        refusal = None
    except exprjit.JitUnavailableError as error:
        refusal = str(error)
    with open("/proc/self/maps") as maps:
        ours = "memfd:exprjit" in maps.read()
    print(json.dumps([
        f.engine, f.why_not_jit, [f(2), lazy(2), lazy(2), lazy(2), verified(2)],
        lazy.engine, verified.engine, refusal, ours, memory.statistics().pages,
    ]))
    """
    engine, why, values, *others, refusal, ours, pages = json.loads(
        child(program, EXPRJIT_DISABLE_JIT="1")
    )
    assert (engine, values, others) == ("interpreter", [6] * 5, ["interpreter"] * 2)
    assert "EXPRJIT_DISABLE_JIT" in why
    assert "EXPRJIT_DISABLE_JIT" in refusal
    assert (ours, pages) == (False, 0)
    usual = json.loads(child(program))
    assert usual[2] == [6] * 5
    for value in ("", "0"):
        assert json.loads(child(program, EXPRJIT_DISABLE_JIT=value)) == usual
    assert usual[0] == "jit" or "EXPRJIT_DISABLE_JIT" not in usual[1]
