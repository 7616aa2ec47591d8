"""What people type: the command line, the prompt and the cross-checker."""
