"""One training step: its loss, how it is executed, what happens if it is not finite."""
