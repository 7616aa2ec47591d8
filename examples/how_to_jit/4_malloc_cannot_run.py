"""Step 4: why the bytes cannot simply go where malloc puts them.

The same eight bytes, in memory from malloc, called in a child process. The child dies of it; the
parent says why.
"""

import ctypes
import platform
import resource
import signal
import subprocess
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

libc = ctypes.CDLL(None)
libc.malloc.argtypes = [ctypes.c_size_t]
libc.malloc.restype = ctypes.c_void_p

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
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a death foretold needs no core file
    memory = libc.malloc(len(ADD4))
    ctypes.memmove(memory, ADD4, len(ADD4))
    print("memory from malloc is", permissions(memory), flush=True)
    print("add4(2) =", add4_type(memory)(2), flush=True)


def main() -> int:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("these bytes are for x86-64 Linux")

    status = subprocess.run([sys.executable, __file__, "child"]).returncode
    if status != -signal.SIGSEGV:
        print(f"the child ended with status {status}: this was not to be expected")
        return 1
    print("the child died of SIGSEGV: the bytes are right, but the page they are in has no x.")
    print("The NX bit in the page table makes the processor fault when it fetches an instruction")
    print("there, so that data, however it came to be there, does not become code. mprotect could")
    print("lift it, but only for whole pages, and malloc keeps other data in the same page.")
    print("So code gets pages of its own, from mmap.")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        child()
    else:
        sys.exit(main())
