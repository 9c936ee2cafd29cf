"""What a difference can do to the bits of a run, where its key alone does not tell."""
