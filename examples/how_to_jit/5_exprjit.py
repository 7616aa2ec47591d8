"""Step 5: the same function, from its formula.

exprjit writes the bytes, keeps them as in step 3, and calls them without going through ctypes.
"""

import exprjit


def main() -> None:
    f = exprjit.compile("x + 4")
    print("f(2) =", f(2))
    if f.why_not_jit:
        print("no machine code here:", f.why_not_jit)
    else:
        print(f.asm)


if __name__ == "__main__":
    main()
