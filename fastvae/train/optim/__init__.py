"""Optimisation: optimisers, learning-rate and beta schedules, EMA, master weights, the gradient buffer."""
