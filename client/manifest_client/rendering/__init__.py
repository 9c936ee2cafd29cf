"""Runs, diffs and verdicts, as people read them in a terminal."""
