"""Where machine code lives and who calls it: memory, processor, Python, NumPy."""
