"""The version of fastvae. pyproject.toml reads it here for the built package."""

__version__ = "0.1.0"
