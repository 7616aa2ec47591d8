"""Step 2: write the code while the page is writable, run it while it is executable, never both.

The article's own advice, and what most JIT compilers do: mmap read+write, copy,
mprotect read+execute.
"""

import ctypes
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

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mmap.restype = ctypes.c_void_p
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mprotect.restype = ctypes.c_int
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.munmap.restype = ctypes.c_int
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


def main() -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("these bytes are for x86-64 Linux")

    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    page = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, private, -1, 0)
    if page == MAP_FAILED:
        sys.exit(f"mmap: {os.strerror(ctypes.get_errno())}")
    ctypes.memmove(page, ADD4, len(ADD4))
    print("while it is written, the page is", permissions(page))

    if libc.mprotect(page, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
        # Hardened services (MemoryDenyWriteExecute) refuse to run what was once writable.
        sys.exit(f"mprotect: {os.strerror(ctypes.get_errno())}")
    add4 = add4_type(page)
    print("while it runs, the page is", permissions(page))
    print("add4(2) =", add4(2))

    # After this a call of add4 would end the process: whoever owns code must outlive its callers.
    libc.munmap(page, mmap.PAGESIZE)


if __name__ == "__main__":
    main()
