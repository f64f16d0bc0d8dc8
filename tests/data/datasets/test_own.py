"""Images as people have them in Python become a data set, or are refused in a line with their type and shape."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

from fastvae.data import DataConfig, TensorSource, open_dataset
from fastvae.data.datasets import own
from fastvae.data.datasets.own import own_dataset, path_name
from fastvae.data.sources.decoded import DecodedSource

PIXELS = np.random.default_rng(0).integers(0, 256, (21, 1, 6, 8), dtype=np.uint8)
IMAGES = torch.from_numpy(PIXELS)
LABELS = torch.arange(21)


class Items(Dataset):
    """Gives what it is made of."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def pictures():
    return [Image.fromarray(image[0]) for image in PIXELS]


WHOLE = {
    "tensor": IMAGES,
    "array": PIXELS,
    "channels last": np.moveaxis(PIXELS, 1, -1),
    "without channels": PIXELS[:, 0],
    "tensor without channels": IMAGES[:, 0],
    "read-only": np.frombuffer(PIXELS.tobytes(), np.uint8).reshape(PIXELS.shape),
    "reversed twice": np.ascontiguousarray(PIXELS[::-1])[::-1],
    "list of tensors": list(IMAGES),
    "list of arrays": list(PIXELS),
    "list of arrays without channels": list(PIXELS[:, 0]),
    "tuple of images": tuple(IMAGES),
    "list of pictures": pictures(),
    "list of pairs": list(zip(IMAGES, LABELS, strict=True)),
    "labelled tensor": (IMAGES, LABELS),
    "labelled array": (PIXELS, LABELS.tolist()),
    "one-hot": (PIXELS, np.eye(21)),
    "labelled by words": (PIXELS, ["a"] * 21),
    "TensorDataset": TensorDataset(IMAGES, LABELS),
    "data set": Items(pictures()),
    "data set with labels": Items([(image, 0) for image in PIXELS]),
    "data set of mappings": Items([{"image": image, "label": 0} for image in pictures()]),
    "Subset": Subset(TensorDataset(torch.cat([IMAGES, IMAGES])), range(21, 42)),
    "joined": ConcatDataset([Items(IMAGES[:5]), Items(IMAGES[5:])]),
    "DataLoader": DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4, shuffle=True, drop_last=True),
    "source": TensorSource(IMAGES),
}


@pytest.mark.parametrize("what", WHOLE)
def test_one_set_is_split_by_tenths(what):
    data = own_dataset(WHOLE[what])
    assert torch.equal(data.test.read([0, 1, 2]), IMAGES[::10])
    assert torch.equal(data.train.read(range(18)), IMAGES[torch.arange(21) % 10 != 0])
    assert isinstance(data.train, TensorSource)
    assert (data.name, data.train.dtype) == ("your data set", torch.uint8)


@pytest.mark.parametrize("what", [*WHOLE, "path"])
def test_any_two_are_a_pair(what, tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    train = tmp_path / "a.npy" if what == "path" else WHOLE[what]
    pairs = [(train, IMAGES[:3]), {"Train": train, "validation": IMAGES[:3]}]
    if not isinstance(train, (list, tuple)):
        pairs.append([train, IMAGES[:3]])
    for pair in pairs:
        data = own_dataset(pair)
        assert sorted(data.train.read(range(21)).flatten().tolist()) == sorted(IMAGES.flatten().tolist())
        assert torch.equal(data.test.read(range(3)), IMAGES[:3])


def test_pairs_with_labels_as_keras_has_them():
    data = own_dataset(((PIXELS[:, 0], LABELS.numpy()), (PIXELS[:4, 0], LABELS[:4].numpy())))
    assert (data.train.shape, data.test.shape) == ((21, 1, 6, 8), (4, 1, 6, 8))
    assert own_dataset([PIXELS[:, 0], PIXELS[:5, 0]]).train.shape == (21, 1, 6, 8)
    first, second = random_split(TensorDataset(IMAGES), [15, 6], torch.Generator().manual_seed(0))
    data = own_dataset((first, DataLoader(second)))
    assert torch.equal(data.train.read(range(15)), IMAGES[first.indices])
    assert torch.equal(data.test.read(range(6)), IMAGES[second.indices])


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (IMAGES.double() / 255, IMAGES.double().div(255).float()),
        ((IMAGES.float() / 255).requires_grad_(), IMAGES.float() / 255),
        (IMAGES > 99, (IMAGES > 99).byte() * 255),
        (PIXELS > 99, (IMAGES > 99).byte() * 255),
        ((PIXELS / 255).astype(">f4"), IMAGES.float() / 255),
        (torch.full((21, 2, 3, 3), 1.0000001), torch.ones(21, 2, 3, 3)),
        (np.zeros((21, 5)), torch.zeros(21, 1, 1, 5)),
        (np.zeros((21, 2, 8, 3), "f4"), torch.zeros(21, 2, 8, 3)),  # not certainly channels last
    ],
)
def test_types_become_those_of_pixels(images, expected):
    data = own_dataset((images, images))
    assert not data.train.images.requires_grad
    assert data.train.dtype == expected.dtype
    torch.testing.assert_close(data.train.images, expected, rtol=0, atol=1e-7)


def test_pictures_by_their_paths(tmp_path, monkeypatch, refuses):
    for number, picture in enumerate(pictures()):
        picture.resize((9 + number, 7)).save(tmp_path / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    names = [f"{number}.png" for number in range(21)]
    data = own_dataset([*names[:-1], tmp_path / names[-1]], size=4, channels=1)
    assert isinstance(data.train, DecodedSource)
    assert (data.train.shape, data.test.shape) == ((18, 1, 4, 4), (3, 1, 4, 4))
    monkeypatch.chdir("/")
    assert data.train.read(range(18)).shape == (18, 1, 4, 4)
    monkeypatch.chdir(tmp_path)
    with refuses("image-size"):
        own_dataset(names)
    with refuses("'no.png' is not a file"):
        own_dataset([*names, "no.png"], size=4)
    sizes = [Image.open(name) for name in names]
    assert own_dataset(sizes, size=4).train.shape == (18, 1, 4, 4)
    with refuses("item 1 is (1, 7, 10)", "make them alike, or give image_size"):
        own_dataset(sizes)


def test_large_sets_stay_where_they_are(monkeypatch, tmp_path):
    monkeypatch.setattr(own, "IN_MEMORY", 0)
    np.save(tmp_path / "a.npy", PIXELS)
    for images in (Items(list(IMAGES)), np.load(tmp_path / "a.npy", mmap_mode="r")):
        data = own_dataset(images)
        assert not isinstance(data.train, TensorSource)
        assert torch.equal(data.test.read([2, 0]), IMAGES[[20, 0]])
        assert torch.equal(data.train.read([17, 0]), IMAGES[[19, 1]])


def test_a_loader_says_what_is_not_used(caplog):
    own_dataset(DataLoader(TensorDataset(IMAGES), batch_size=4, num_workers=2))
    assert len(caplog.messages) == 1
    assert "order follows the run's seed" in caplog.messages[0]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(IMAGES)


def collate_noisily(items):
    return torch.stack(items) + 1


class Random(Items):
    def __getitem__(self, index):
        return torch.rand(1, 6, 8)


SEQUENTIAL = BatchSampler(SequentialSampler(IMAGES), 4, drop_last=False)


class OwnBatches(BatchSampler):
    pass


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, ["NoneType", "give a path"]),
        (3, ["int"]),
        ([], ["empty list"]),
        (b"a.npy", ["bytes"]),
        ((image for image in IMAGES), ["generator"]),
        (nn.Linear(2, 2), ["Linear"]),
        (Image.fromarray(PIXELS[0, 0]), ["single picture", "(8, 6)"]),
        ((IMAGES, IMAGES, IMAGES), ["tuple of 3", "(21, 1, 6, 8)", "(train, test)"]),
        ([IMAGES] * 3, ["3 sets of images", "torch.cat"]),
        ((IMAGES[:, 0],) * 3, ["tuple of 3", "(21, 6, 8)", "(train, test)"]),
        ([IMAGES[:, 0], IMAGES[:9, 0], IMAGES[:7, 0]], ["3 sets of images", "torch.cat"]),
        ({"images": IMAGES}, ["dict of images", "train and test"]),
        ({"test": IMAGES}, ["dict of test"]),
        (IMAGES[0, 0, 0], ["(8,)", "(N, C, H, W)"]),
        (IMAGES[:, None], ["(21, 1, 1, 6, 8)", "reshape"]),
        (IMAGES[:0], ["(0, 1, 6, 8)"]),
        (IMAGES.to(torch.complex64), ["complex64", "real numbers"]),
        (IMAGES.to_sparse(), ["sparse", "dense"]),
        (torch.nested.as_nested_tensor([*IMAGES], layout=torch.jagged), ["nested tensor", "dense"]),
        (IMAGES.to("meta"), ["meta device", "dense"]),
        (np.ma.masked_array(PIXELS, PIXELS > 3), ["masked", "filled(0)"]),
        (IMAGES.short(), ["int16", ".to(torch.uint8)"]),
        (PIXELS.astype(np.uint16), ["(21, 1, 6, 8)", ".to(torch.uint8)"]),
        (np.array([PIXELS[0], None], object), ["object", "(2,)"]),
        (np.array(["a", "b"]), ["<U1"]),
        (torch.full((4, 1, 2, 2), torch.nan), ["NaN"]),
        ([IMAGES[0], torch.zeros(1, 6, 9).byte()], ["item 1 is (1, 6, 9)"]),
        ((IMAGES, IMAGES[:, :, :3]), ["(21, 1, 6, 8)", "(21, 1, 3, 8)", "one type and one (C, H, W)"]),
        (Stream(), ["IterableDataset", "Stream"]),
        (DataLoader(Stream()), ["IterableDataset"]),
        (Random(IMAGES), ["Random", "another image each time", "flip and crop"]),
        (Items(["a"]), ["item 0 is a str"]),
        (Items([]), ["has 0"]),
        (
            DataLoader(TensorDataset(IMAGES), sampler=WeightedRandomSampler(torch.ones(21), 5)),
            ["WeightedRandomSampler"],
        ),
        (DataLoader(TensorDataset(IMAGES), batch_sampler=OwnBatches(range(9), 2, drop_last=False)), ["OwnBatches"]),
        (DataLoader(TensorDataset(IMAGES), collate_fn=collate_noisily), ["collate_fn (collate_noisily)"]),
    ],
    ids=lambda value: None,
)
def test_what_is_refused_is_named(refuses, data, words):
    with refuses(*words):
        own_dataset(data)


def test_a_path_object_is_never_a_named_data_set():
    assert path_name("digits") == "digits"
    assert path_name(Path("digits")) == "./digits"
    assert path_name(Path("/a/b.npy")) == "/a/b.npy"


def test_a_cache_of_images_that_no_file_tells_apart_is_refused(refuses, tmp_path, monkeypatch):
    monkeypatch.setattr(own, "IN_MEMORY", 0)
    config = DataConfig(cache=tmp_path / "cache")
    with refuses("your data set comes from Python", "leave out cache"):
        open_dataset(config, own_dataset(Items(list(IMAGES))))
    assert open_dataset(config, own_dataset(IMAGES)).train.shape == (18, 1, 6, 8)
