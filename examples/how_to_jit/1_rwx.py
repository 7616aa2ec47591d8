"""Step 1: machine code in a page that is readable, writable and executable at once.

The shortest way to run bytes as code, and the one to leave behind: whoever can be made to write
where he should not can now write code. The page lives in a child process and dies with it.
"""

import ctypes
import mmap
import platform
import subprocess
import sys
from pathlib import Path

# long add4(long num) { return num + 4; }
ADD4 = bytes(
    [
        0x48, 0x89, 0xF8,        # mov rax, rdi    the first argument of a C function is in rdi
        0x48, 0x83, 0xC0, 0x04,  # add rax, 4
        0xC3,                    # ret             a C function returns its result in rax
    ]
)  # fmt: skip

libc = ctypes.CDLL(None, use_errno=True)
# Undeclared, ctypes would cut the address that mmap returns to 32 bits.
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mmap.restype = ctypes.c_void_p
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


def child() -> None:
    everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    page = libc.mmap(None, mmap.PAGESIZE, everything, private, -1, 0)
    if page == MAP_FAILED:
        sys.exit("this system refuses such a page, and it is right")

    ctypes.memmove(page, ADD4, len(ADD4))
    add4 = add4_type(page)  # a prototype at an address: Python calls C code that is there
    print("the page is", permissions(page))
    print("add4(2) =", add4(2))


def main() -> int:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("these bytes are for x86-64 Linux")
    return subprocess.run([sys.executable, __file__, "child"]).returncode


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        child()
    else:
        sys.exit(main())
