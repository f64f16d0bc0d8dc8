"""Checkpoints: their files, when the best is kept, the states of random generators."""
