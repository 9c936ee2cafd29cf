"""Goldens: what a training in a test computes, kept in a text beside the test."""
