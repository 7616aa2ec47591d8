"""Step 3: code in a page that was never writable, under any address, and can never become so.

In step 2 the page is writable for a moment, and a stray mprotect can make it so again. Here the
bytes go into a nameless file with write(2); the file is sealed against all change, and only then
mapped read+execute. exprjit keeps its code like this.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import sys
from pathlib import Path

# long add4(long num) { return num + 4; }
ADD4 = bytes(
    [
        0x48, 0x89, 0xF8,        # mov rax, rdi
        0x48, 0x83, 0xC0, 0x04,  # add rax, 4
        0xC3,                    # ret
    ]
)  # fmt: skip
INT3 = b"\xcc"  # a trap: what fills the rest of the page must not run

MFD_EXEC = 0x10  # linux/memfd.h, since 6.3; Python has no name for it

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mmap.restype = ctypes.c_void_p
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mprotect.restype = ctypes.c_int
MAP_FAILED = ctypes.c_void_p(-1).value

add4_type = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)


def permissions(address: int) -> str:
    """What the kernel lets the process do with the page at the address, as in "r-xp"."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, allowed = line.split()[:2]
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= address < end:
            return allowed
    return "none"


def sealed_file(content: bytes) -> int:
    """The descriptor of a file in memory that holds the content and that no one can change."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("add4", flags | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create("add4", flags)  # an older kernel: every memfd is executable
    if os.write(fd, content) != len(content):
        sys.exit("the write was cut short")
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def main() -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("these bytes are for x86-64 Linux")

    fd = sealed_file(ADD4.ljust(mmap.PAGESIZE, INT3))
    # Shared: a private mapping is a copy that mprotect may make writable.
    execute = mmap.PROT_READ | mmap.PROT_EXEC
    page = libc.mmap(None, mmap.PAGESIZE, execute, mmap.MAP_SHARED, fd, 0)
    if page == MAP_FAILED:
        sys.exit(f"mmap: {os.strerror(ctypes.get_errno())}; this needs Linux 6.7 or newer")
    os.close(fd)  # the mapping keeps the file

    add4 = add4_type(page)
    print("the page is", permissions(page))
    print("add4(2) =", add4(2))

    # Neither the front door nor the back door leads to a writable page.
    refused = libc.mprotect(page, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)
    print("mprotect(read+write):", os.strerror(ctypes.get_errno()) if refused else "allowed")
    try:
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(page)
            memory.write(INT3)
        print("write to /proc/self/mem: allowed")
    except OSError as error:
        print("write to /proc/self/mem:", error.strerror)
    print("add4(2) is still", add4(2))


if __name__ == "__main__":
    main()
