"""The place of a data set, wherever the program is started."""

import os

from fastvae.data.formats.torchvision import PREFIX
from fastvae.data.sources.folders import path_of
from fastvae.utils.errors import InputError

from .load import NAMES


def located(data: str) -> str:
    """Return a data set's name as it is, and a path as an absolute one.

    >>> located("mnist"), located("/scratch/pics")
    ('mnist', '/scratch/pics')
    """
    if not data or data in NAMES or data.startswith(PREFIX):
        return data
    return os.path.join(os.getcwd(), os.path.expanduser(data))


def check_there(data: str, run: object) -> None:
    """Raise InputError where the images of a run are not at the path that its settings have."""
    path_of(data)  # raises for a name that no file can have
    path = located(data)
    if path == data and not os.path.isabs(data):  # a name
        return
    if os.path.exists(path) or any(mark in path for mark in "{:"):  # of shards, or of an array in a file
        return
    why = "" if os.path.isabs(os.path.expanduser(data)) else ", relative to the folder where it was started"
    raise InputError(f"{path} is not there, but {run} has its images in {data}{why}: name their place with --data")
