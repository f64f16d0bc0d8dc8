"""Data sets by name, and `load`, which opens any of them."""
