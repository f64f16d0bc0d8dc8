"""Reporting: the run folder, metrics, throughput, the progress bar, figures."""
