"""All attack cases, by attack surface."""

from . import (
    archives,
    arrays,
    caches,
    checkpoints,
    configs,
    environment,
    hdf5,
    huggingface,
    links,
    pictures,
    pipes,
    processes,
    resumed,
    tars,
)

_SURFACES = (
    configs, checkpoints, resumed, links, pipes, arrays, archives, tars, pictures, caches, hdf5, huggingface,
    environment, processes,
)  # fmt: skip
ALL = [case for surface in _SURFACES for case in surface.CASES]
assert len({case.id for case in ALL}) == len(ALL), "two cases have the same id"
