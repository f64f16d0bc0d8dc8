"""The exceptions that fastvae raises for input that a user can correct."""

from fastvae.utils.errors import InputError

__all__ = ["InputError"]
