"""What other tools read of a run: text made from its manifest, which is not trusted."""
