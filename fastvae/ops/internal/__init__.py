"""Operators of the training engine, without a promise to users: they may change in any release."""
