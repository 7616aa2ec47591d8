"""x86-64: how the machine computes a formula; the only folder that knows the ISA."""
