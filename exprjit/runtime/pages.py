"""How a page of machine code is made and replaced: the system calls, and a policy for each way.

Every page has the same life. It is made whole, complete with its content, and is executable from
then on; to change a byte of it, a page with the new content is made and put in its place in one
step. No policy ever has a mapping that is writable and executable at once.

- `Sealed`: the content is a memory file, sealed against every kind of change before it is mapped.
  Nobody can make the mapping writable again, not even through /proc/self/mem.
- `Mprotect`: the content is written to private memory, which then changes from writable to
  executable.

`choose` tries them in that order on a scratch page. All functions here raise `CodeMemoryError`
where the system refuses. Nothing is loaded or called when the module is imported.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Protocol

    class Policy(Protocol):
        """One way to have memory that is executable and never also writable.

        Contents are a whole number of pages long; addresses are those that `map` gave.
        """

        name: str

        def map(self, content: bytes) -> int:
            """The address of new executable memory with this content."""

        def replace(self, address: int, content: bytes) -> None:
            """Put `content` at `address` in one step for every thread; all or nothing."""

        def unmap(self, address: int, size: int) -> None:
            """Give the memory back."""


PAGE = 4096

# From the kernel's headers for x86-64 (mman-common.h, memfd.h, fcntl.h).
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 0x01, 0x02, 0x10, 0x20
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_EXEC = 0x01, 0x02, 0x10
F_ADD_SEALS = 1033
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 1, 2, 4, 8
ALL_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE

#: Shortages, which pass: what failed for one of these is worth trying again later.
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG, errno.ENOSPC, errno.EAGAIN}


class CodeMemoryError(Exception):
    """Executable memory cannot be had, now or at all; the text is the reason.

    Attributes:
        errno: the system's error number, or 0 where the reason is another one.
    """

    def __init__(self, reason: str, number: int = 0) -> None:
        super().__init__(reason)
        self.errno = number


def out_of_memory(error: Exception) -> bool:
    """Whether it is a MemoryError, or what ctypes makes of one that it meets in an argument."""
    return isinstance(error, MemoryError) or type(error).__name__ == "ArgumentError"


def why_not_loaded(error: Exception) -> int:
    """The error number of a module that could not be imported, or 0 where it is not there.

    Of an extension module that is there and could not be mapped the import tells none.
    """
    if isinstance(error, ImportError):
        return errno.ENOMEM if str(error.path).endswith(".so") else 0
    return getattr(error, "errno", None) or 0


class Kernel:
    """The system calls that policies are made of, through the C library.

    `PyDLL` keeps the interpreter lock during a call. Each call takes a microsecond or two, but a
    thread that gives the lock up waits for it up to a whole switch interval (5 ms), and an install
    would do that six times over.
    """

    def __init__(self) -> None:
        try:
            import ctypes

            libc = ctypes.PyDLL(None, use_errno=True)
            number, size, pointer = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
            signatures: dict[str, tuple[object, ...]] = {
                "mmap": (pointer, size, number, number, number, ctypes.c_long),
                "mremap": (pointer, size, size, number, pointer),
                "mprotect": (pointer, size, number),
                "munmap": (pointer, size),
                "memfd_create": (ctypes.c_char_p, ctypes.c_uint),
                "write": (number, pointer, size),
                "fcntl": (number, number, number),
                "close": (number,),
            }
            for name, argtypes in signatures.items():
                function = getattr(libc, name)
                function.argtypes = argtypes
                function.restype = ctypes.c_long if name in ("mmap", "mremap", "write") else number

            class MemoryFile(ctypes.c_int):
                """The descriptor of a memory file, which is closed with this object at the latest.

                As soon as a call is over a signal handler may run, and if it raises, nobody else
                knows what the call returned.
                """

                def close(self) -> None:
                    self.__class__ = ctypes.c_int  # type: ignore[assignment]  # has no finaliser
                    libc.close(self)

                __del__ = close

            libc.memfd_create.restype = MemoryFile
        except (ImportError, OSError, AttributeError, TypeError) as error:
            reason = f"the C library cannot be called: {error}"
            raise CodeMemoryError(reason, why_not_loaded(error)) from None
        self._libc = libc
        self._errno = ctypes.get_errno
        self._memmove: Callable[[int, bytes, int], object] = ctypes.memmove
        self._prototype = ctypes.PYFUNCTYPE(number)
        self.read: Callable[[int, int], bytes] = ctypes.string_at

    def _fail(self, call: str) -> NoReturn:
        number = self._errno()
        name = errno.errorcode.get(number, "unknown error")
        raise CodeMemoryError(f"{call}: {os.strerror(number)} ({name})", number)

    def map(self, address: int, size: int, protection: int, flags: int, fd: Any) -> int:
        """mmap(2): the address of the new mapping."""
        result: int = self._libc.mmap(address, size, protection, flags, fd, 0)
        if result == -1:
            self._fail("mmap")
        return result

    def move(self, source: int, target: int, size: int) -> None:
        """Put the mapping at `source` in the place of the one at `target`; on failure drop it."""
        flags = MREMAP_MAYMOVE | MREMAP_FIXED
        if self._libc.mremap(source, size, size, flags, target) == -1:
            try:
                self._fail("mremap")
            finally:
                self._libc.munmap(source, size)

    def protect(self, address: int, size: int, protection: int) -> None:
        """mprotect(2)."""
        if self._libc.mprotect(address, size, protection):
            self._fail("mprotect")

    def unmap(self, address: int, size: int) -> None:
        """munmap(2)."""
        if self._libc.munmap(address, size):
            self._fail("munmap")

    def store(self, address: int, content: bytes) -> None:
        """Copy `content` into writable memory."""
        self._memmove(address, content, len(content))

    def memory_file(self, flags: int) -> Any:
        """memfd_create(2): a new file descriptor, an object that owns it."""
        file = self._libc.memfd_create(b"exprjit", flags)
        if file.value == -1:
            self._fail("memfd_create")
        return file

    def write(self, file: Any, content: bytes) -> None:
        """Write all of `content`: write(2) may take only a part, as at a file size limit."""
        rest = content
        while rest:
            written: int = self._libc.write(file, rest, len(rest))
            if written == 0:
                raise CodeMemoryError("write: nothing was written", errno.ENOSPC)
            if written == -1 and self._errno() != errno.EINTR:
                self._fail("write")
            rest = rest[max(written, 0) :]

    def seal(self, file: Any) -> None:
        """Make the memory file unchangeable for good, in content, size and seals."""
        if self._libc.fcntl(file, F_ADD_SEALS, ALL_SEALS):
            self._fail("fcntl(F_ADD_SEALS)")

    def close(self, file: Any) -> None:
        """close(2); on Linux the descriptor is gone even where an error is reported."""
        file.close()

    def run(self, address: int) -> int:
        """What the code `int f(void)` at `address` returns."""
        result: int = self._prototype(address)()
        return result


def _kernel_version() -> tuple[int, ...]:
    """As in (6, 13); (0,) if it cannot be told."""
    numbers = os.uname().release.split(".")[:2]
    return tuple(map(int, numbers)) if all(map(str.isdecimal, numbers)) else (0,)


class Sealed:
    """Pages of memory files that were sealed before they were mapped: never writable at all."""

    name = "sealed"

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC
        try:
            kernel.close(kernel.memory_file(self._flags))
        except CodeMemoryError as error:
            if error.errno != errno.EINVAL:
                raise
            # Before Linux 6.3 there is no such flag, and every memory file is executable.
            self._flags &= ~MFD_EXEC
        # Older kernels take the old page away before they know that the new one can be had, and
        # a failure in between leaves a hole. Trying that out would be a race with other threads.
        self.in_place = _kernel_version() >= (6, 13)

    def _map(self, content: bytes, address: int, protection: int, flags: int) -> int:
        """Map a new sealed file with this content."""
        kernel = self._kernel
        file = kernel.memory_file(self._flags)
        try:
            kernel.write(file, content)
            kernel.seal(file)
            return kernel.map(address, len(content), protection, flags, file)
        finally:
            kernel.close(file)

    def map(self, content: bytes) -> int:
        """A mapping of a new sealed file with this content.

        Shared, not private: of a private mapping the process could still have a writable copy.
        Linux before 6.7 refuses to map a sealed file shared.
        """
        return self._map(content, 0, PROT_READ | PROT_EXEC, MAP_SHARED)

    def replace(self, address: int, content: bytes) -> None:
        """Map over the old page, or where a failure could cost us that, elsewhere, then move."""
        if self.in_place:
            self._map(content, address, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED)
        else:
            self._kernel.move(self.map(content), address, len(content))

    def unmap(self, address: int, size: int) -> None:
        """Give the memory back."""
        self._kernel.unmap(address, size)


class Mprotect:
    """Private pages that are writable while they are filled and executable from then on."""

    name = "mprotect"

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def map(self, content: bytes) -> int:
        """A new private mapping with this content."""
        kernel, size = self._kernel, len(content)
        address = kernel.map(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1)
        try:
            kernel.store(address, content)
            kernel.protect(address, size, PROT_READ | PROT_EXEC)
        except BaseException:
            kernel.unmap(address, size)
            raise
        return address

    def replace(self, address: int, content: bytes) -> None:
        """Fill a page elsewhere, then move it: the old page stays executable until that moment."""
        self._kernel.move(self.map(content), address, len(content))

    def unmap(self, address: int, size: int) -> None:
        """Give the memory back."""
        self._kernel.unmap(address, size)


POLICIES: dict[str, Callable[[Kernel], Policy]] = {"sealed": Sealed, "mprotect": Mprotect}


def most_mappings() -> int:
    """How many mappings code memory may have: three quarters of what the system allows a process.

    Python's own memory comes as mappings too. A process at the limit can do nothing any more.
    """
    try:
        with open("/proc/sys/vm/max_map_count", "rb") as file:
            allowed = int(file.read())
    except (OSError, ValueError):
        allowed = 65530  # the kernel's default
    return allowed * 3 // 4


def check_setting(setting: str) -> None:
    """Raise ValueError unless `setting` names a policy or is empty, which leaves the choice."""
    if setting not in ("", *POLICIES, "none"):
        raise ValueError(f"EXPRJIT_MEMORY is {setting!r}; it can be sealed, mprotect or none")


def choose(setting: str = "") -> tuple[Policy | None, Kernel | None, str]:
    """The best policy that works here.

    Args:
        setting: the name of the only policy to try, "none" for no code memory, "" for the best.

    Returns:
        The policy, the system calls it uses, and why better ones were passed over ("" if there is
        none better). The policy is None, and so are its calls, where there is no code memory.

    Raises:
        ValueError: `setting` is none of these.
        CodeMemoryError: the C library cannot be called, or a shortage (of file descriptors, say)
            hides what the system allows. The question is open: ask again later.
    """
    check_setting(setting)
    if setting == "none":
        return None, None, "EXPRJIT_MEMORY=none"
    reasons = [f"EXPRJIT_MEMORY={setting}"] if setting else []
    try:
        _check_machine()
    except CodeMemoryError as error:
        return None, None, str(error)
    kernel = Kernel()
    for name, make in POLICIES.items():
        if setting and setting != name:
            continue
        try:
            policy = make(kernel)
            _try_out(policy, kernel)
        except CodeMemoryError as error:
            if error.errno in SHORTAGES:
                raise
            reasons.append(f"{name}: {error}")
        else:
            return policy, kernel, "; ".join(reasons)
    return None, None, "; ".join(reasons)


def _check_machine() -> None:
    """Raise CodeMemoryError unless this process runs x86-64 code on Linux."""
    if sys.platform != "linux":
        raise CodeMemoryError(f"code memory needs Linux, not {sys.platform}")
    machine = os.uname().machine
    if machine != "x86_64" or sys.maxsize < 2**32:
        bits = 64 if sys.maxsize > 2**32 else 32
        raise CodeMemoryError(f"code memory needs x86-64, not {machine} with {bits}-bit pointers")


def _try_out(policy: Policy, kernel: Kernel) -> None:
    """Make a scratch page, run it, replace it, run it again.

    Raises:
        CodeMemoryError: one of the steps was refused or had another effect.
    """

    def page(answer: int) -> bytes:
        # endbr64; mov eax, answer; ret
        code = b"\xf3\x0f\x1e\xfa\xb8" + answer.to_bytes(4, "little") + b"\xc3"
        return code.ljust(PAGE, b"\xcc")

    address = policy.map(page(42))
    try:
        answers = [kernel.run(address)]
        policy.replace(address, page(7))
        answers.append(kernel.run(address))
    finally:
        policy.unmap(address, PAGE)
    if answers != [42, 7]:
        raise CodeMemoryError(f"a scratch page answered {answers} instead of [42, 7]")
