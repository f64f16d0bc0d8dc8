"""Images made for tests."""

import io

import numpy as np
from PIL import Image


class Made:
    """An :class:`fastvae.data.sources.source.Encoded` in memory."""

    def __init__(self, contents):
        self.contents = list(contents)

    def __len__(self):
        return len(self.contents)

    def encoded(self, index):
        content = self.contents[index]
        if content is None:
            raise PermissionError(13, "Permission denied")
        return content

    def name(self, index):
        return f"made/{index}"

    def file(self, index):
        return b"made"


def encoded(picture, form="PNG", **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def numbered(count):
    """Return PNGs of several sizes, each in one colour that encodes its number."""
    return Made(
        encoded(Image.new("RGB", (20 + index % 3, 17 + index % 5), (index % 256, index // 256, 77)))
        for index in range(count)
    )


def numbers(images):
    return (images[:, 0, 0, 0].long() + 256 * images[:, 1, 0, 0].long()).tolist()


def photographs(count, height=90, width=120):
    """Return JPEGs as smooth as photographs."""
    made = []
    for index in range(count):
        coarse = np.random.default_rng(index).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        made.append(
            encoded(Image.fromarray(coarse).resize((width + index % 7, height), Image.Resampling.BICUBIC), "JPEG")
        )
    return Made(made)
