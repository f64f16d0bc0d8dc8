"""The benchmark ``fastvae bench``: training loops for the same network, timed in turns in one process."""
