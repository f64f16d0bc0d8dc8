"""The version of fastvae, also that of the built package (pyproject.toml reads it here)."""

__version__ = "0.1.0"
