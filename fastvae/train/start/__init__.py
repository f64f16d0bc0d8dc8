"""The start of a run: its folder, the run that it goes on with, the weights that it begins with."""
