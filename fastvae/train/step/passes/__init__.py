"""Rewrites of a traced step's graph on a CPU; each keeps the results."""
