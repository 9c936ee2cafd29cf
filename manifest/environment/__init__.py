"""What surrounds a run: the interpreter, packages, variables, hardware and source code."""
