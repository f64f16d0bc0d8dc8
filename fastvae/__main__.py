"""``python -m fastvae``, also under torchrun: the command ``fastvae``."""

from .cli import main

if __name__ == "__main__":
    main()
