"""The training loops that race, each in its own file."""
