"""Checks of files before a library that would trust them opens them."""
