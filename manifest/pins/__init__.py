"""Give unseeded sources their entropy from the master of the run.

Each file pins one library. A pin changes what an *unseeded* source starts from, and nothing else: a
program that seeds itself draws the same numbers with and without it.
"""
