"""What an expression means: the operator table, the parser and the interpreter."""
