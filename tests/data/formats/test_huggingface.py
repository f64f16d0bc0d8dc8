"""Folders of Hugging Face's datasets: the pictures' own bytes, and no code."""

import io
import json
import os
import pickle
import sys

import pytest

from fastvae.data.formats.huggingface import HuggingFacePictures, is_saved, read_saved


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets")


def png(shade):
    from PIL import Image  # noqa: PLC0415

    data = io.BytesIO()
    Image.new("L", (3, 2), shade).save(data, "PNG")
    return data.getvalue()


def made(datasets, shades, name="image", **columns):
    """A data set of pictures of one shade each."""
    columns = {**columns, name: [{"bytes": png(shade), "path": None} for shade in shades]}
    features = {column: datasets.Image() for column in columns} | {"label": datasets.Value("int64")}
    return built(datasets, {**columns, "label": list(shades)}, features)


def built(datasets, columns, features):
    with pytest.MonkeyPatch.context() as patch:  # with some releases of dill, datasets cannot pickle what it hashes
        patch.setattr(datasets.arrow_dataset, "generate_fingerprint", lambda _: "made")
        return datasets.Dataset.from_dict(columns, datasets.Features(features))


def saved(dataset, folder):
    dataset.save_to_disk(folder)
    return folder


def read(part):
    return [part.encoded(index) for index in range(len(part))]


def test_one_set_is_split(datasets, tmp_path):
    folder = saved(made(datasets, range(13), "picture"), tmp_path / "x")
    assert is_saved(folder)
    train, test = read_saved(folder)
    assert read(test) == [png(0), png(10)]
    assert read(train) == [png(shade) for shade in range(13) if shade % 10]
    assert train.name(10) == f"{folder} row 12"
    assert read(pickle.loads(pickle.dumps(train))) == read(train)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_splits_are_found(datasets, tmp_path, split):
    both = {"train": made(datasets, [1, 2]), split: made(datasets, [3]), "other": made(datasets, [4])}
    folder = saved(datasets.DatasetDict(both), tmp_path / "x")
    assert is_saved(folder)
    train, test = read_saved(folder)
    assert (read(train), read(test)) == ([png(1), png(2)], [png(3)])
    assert test.name(0) == f"{folder}/{split} row 0"
    train, test = read_saved(saved(datasets.DatasetDict(train=made(datasets, range(11))), tmp_path / "y"))
    assert (len(train), len(test)) == (9, 2)


def test_pictures_may_lie_in_files(datasets, tmp_path):
    (tmp_path / "a.png").write_bytes(png(7))
    paths = [{"bytes": None, "path": str(tmp_path / "a.png")}, None, {"bytes": None, "path": str(tmp_path / "no.png")}]
    dataset = built(datasets, {"image": paths}, {"image": datasets.Image(decode=False)})
    column = HuggingFacePictures(dataset, "x")
    assert column.encoded(0) == png(7)
    for index in (1, 2):
        with pytest.raises(OSError, match=r"holds no picture|No such file"):
            column.encoded(index)


def test_a_format_of_the_readers_own_changes_nothing(datasets, tmp_path):
    train, test = read_saved(saved(made(datasets, range(4)).with_format("numpy", columns=["label"]), tmp_path / "x"))
    assert read(test) + read(train) == [png(shade) for shade in range(4)]


def test_refuses_what_has_no_pictures(datasets, tmp_path, refuses):
    with refuses("0 columns of pictures", "label", "datasets.Image()"):
        read_saved(saved(built(datasets, {"label": [1, 2]}, {"label": datasets.Value("int64")}), tmp_path / "a"))
    images = [{"bytes": png(1), "path": None}] * 2
    with refuses("2 columns of pictures among left, right, label", "name it 'image'"):
        read_saved(saved(made(datasets, [1, 2], "right", left=images), tmp_path / "b"))
    with refuses(tmp_path / "c", "1 image", "at least 2"):
        read_saved(saved(made(datasets, [1]), tmp_path / "c"))
    with refuses(tmp_path / "d", "splits a, b", "not train and one of", "test", "validation", "rename them"):
        read_saved(saved(datasets.DatasetDict(a=made(datasets, [1]), b=made(datasets, [2])), tmp_path / "d"))


def test_refuses_a_damaged_folder(datasets, tmp_path, refuses):
    folder = saved(made(datasets, range(4)), tmp_path / "x")
    arrow = next(folder.glob("*.arrow"))
    content = arrow.read_bytes()
    for damage in (content[:-200], b"text", None):
        arrow.unlink() if damage is None else arrow.write_bytes(damage)
        with refuses(folder, "can't be read as a saved data set", "save it again"):
            read_saved(folder)


def test_says_what_to_install(tmp_path, monkeypatch, refuses):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with refuses(tmp_path, "pip install fastvae[hf]"):
        read_saved(tmp_path)
    assert not is_saved(tmp_path)


def test_pictures_in_files_are_told_of(datasets, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(datasets.arrow_writer, "embed_table_storage", lambda table, **_: table)  # it would read them
    (tmp_path / "a.png").write_bytes(png(7))
    os.mkfifo(tmp_path / "pipe.png")
    pictures = [{"bytes": None, "path": str(tmp_path / name)} for name in ("a.png", "pipe.png")]
    pictures += [{"bytes": png(1), "path": "x.png"}, None]
    folder = saved(built(datasets, {"image": pictures}, {"image": datasets.Image(decode=False)}), tmp_path / "x")
    train, test = read_saved(folder)
    assert caplog.messages == [f"{folder}: 2 of its pictures are files of their own, {tmp_path}/a.png for one"]
    assert test.encoded(0) == png(7)
    with pytest.raises(OSError, match="named pipe"):
        train.encoded(0)


@pytest.mark.parametrize("name", ["../y/data-00000-of-00001.arrow", "/etc/passwd", "..", "", 5, None, "a\0b"])
def test_refuses_files_of_other_folders(datasets, tmp_path, refuses, name):
    for folder in ("x", "y"):
        saved(made(datasets, range(4)), tmp_path / folder)
    state = json.loads((tmp_path / "x" / "state.json").read_text())
    state["_data_files"][0]["filename"] = name
    (tmp_path / "x" / "state.json").write_text(json.dumps(state))
    with refuses(tmp_path / "x" / "state.json", "names", "not a file in its folder"):
        read_saved(tmp_path / "x")


def test_refuses_splits_of_other_folders(datasets, tmp_path, refuses):
    saved(made(datasets, range(4)), tmp_path / "y")
    both = {"train": made(datasets, [1, 2]), "test": made(datasets, [3])}
    folder = saved(datasets.DatasetDict(both), tmp_path / "x")
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "../y"]}')
    with refuses(folder / "dataset_dict.json", "'../y'"):
        read_saved(folder)


def test_refuses_links_to_other_folders(datasets, tmp_path, refuses):
    for name in ("x", "y"):
        saved(made(datasets, range(4)), tmp_path / name)
    arrow = next((tmp_path / "x").glob("*.arrow"))
    arrow.unlink()
    arrow.symlink_to(tmp_path / "y" / arrow.name)
    with refuses(arrow, "a link that leaves"):
        read_saved(tmp_path / "x")


def test_refuses_pipes_and_nonsense(datasets, tmp_path, refuses):
    folder = saved(made(datasets, range(4)), tmp_path / "x")
    for content in (b"[]", b"[" * 200_000, b"{}", b'{"_data_files": [5]}'):
        (folder / "state.json").write_bytes(content)
        with refuses(folder, "can't be read as a saved data set"):
            read_saved(folder)
    for name in ("state.json", "dataset_info.json"):
        folder = saved(made(datasets, range(4)), tmp_path / name)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with refuses(folder, "named pipe"):
            read_saved(folder)


def test_what_is_looked_at_is_what_is_opened(datasets, tmp_path):
    """A folder that is both a set of splits and a single one, whose state names a file elsewhere."""
    secret = saved(made(datasets, range(200, 220)), tmp_path / "secret")
    (arrow,) = secret.glob("*.arrow")
    folder = tmp_path / "both"
    datasets.DatasetDict(train=made(datasets, range(20)), test=made(datasets, range(2))).save_to_disk(folder)
    for name in ("dataset_info.json", "state.json"):
        state = json.loads((secret / name).read_text())
        if name == "state.json":
            state["_data_files"] = [{"filename": str(arrow)}]
        (folder / name).write_text(json.dumps(state))
    train, _ = read_saved(folder)
    assert read(train)[0] == png(0)


@pytest.mark.parametrize("split", ["a::b", "a:b", "..", "a/b", "a\\b", ""])
def test_names_of_splits_that_lead_elsewhere_are_refused(datasets, tmp_path, split, refuses):
    folder = tmp_path / "sets"
    datasets.DatasetDict(train=made(datasets, range(20)), test=made(datasets, range(2))).save_to_disk(folder)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", split]}))
    with refuses(folder / "dataset_dict.json", "is not a file in its folder"):
        read_saved(folder)


def test_packed_batches_are_refused(datasets, tmp_path, refuses):
    folder = saved(made(datasets, range(20)), tmp_path / "packed")
    pyarrow = pytest.importorskip("pyarrow")
    (arrow,) = folder.glob("*.arrow")
    with pyarrow.memory_map(str(arrow)) as file:
        table = pyarrow.ipc.open_stream(file).read_all()
        options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
        with pyarrow.ipc.new_stream(str(tmp_path / "new"), table.schema, options=options) as stream:
            stream.write_table(table)
    (tmp_path / "new").replace(arrow)
    with refuses(arrow, "packed record batches"):
        read_saved(folder)
