"""Loaders: batches in an order that is a pure function of (seed, epoch)."""
