"""Measuring: the trial that chooses how steps run, --profile, the roofline."""
