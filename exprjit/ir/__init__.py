"""What is computed: the graph, how it is built from the AST, and its algebra."""
