"""The whole-run benchmark, ``fastvae bench``: training loops for one network, side by side in one process."""
