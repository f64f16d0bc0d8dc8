"""Pictures in folders: which, in what order, and what is refused."""

import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvae.data.formats.file_names import NameList
from fastvae.data.formats.folder import FilePictures, read_folder


@pytest.fixture
def filled(tmp_path):
    """Makes files whose content is their name."""

    def fill(*names):
        for name in names:
            path = tmp_path / "pictures" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return tmp_path / "pictures"

    return fill


def names(part, folder):
    return [os.path.relpath(part.name(index), folder) for index in range(len(part))]


def test_finds_pictures_in_the_order_of_their_paths(filled):
    there = ["b.png", "a/z.JPG", "a-b/x.jpeg", "a/y/1.WebP", "a.jpg", "c/Ü.png", "c/2.jpg", "c/10.jpg"]
    folder = filled(*there, "notes.txt", ".DS_Store", "a/._z.jpg", ".trash/x.jpg", "c/x.jpg.bak", "c/tiff.tif")
    train, test = read_folder(folder)
    ordered = sorted(there, key=os.fsencode)
    assert names(test, folder) == ordered[:1]
    assert names(train, folder) == ordered[1:]
    assert [train.encoded(index).decode() for index in range(7)] == ordered[1:]


@given(st.sets(st.text("ab-./0", min_size=1, max_size=6), min_size=2, max_size=12))
def test_any_tree_is_read_in_the_order_of_its_bytes(tmp_path_factory, stems):
    root = tmp_path_factory.mktemp("tree")
    for stem in stems:
        parts = [f"x{part}" for part in stem.split("/")]  # none is hidden or empty
        (root / "/".join(parts[:-1])).mkdir(parents=True, exist_ok=True)
        (root / f"{'/'.join(parts)}.png").touch()
    there = sorted(os.path.relpath(path, root) for path in root.rglob("*.png"))
    if len(there) > 1:
        train, test = read_folder(root)
        assert names(test, root) == there[::10]
        assert names(train, root) == [name for place, name in enumerate(there) if place % 10]


@pytest.mark.parametrize("split", ["test", "val", "valid", "VALIDATION", "Dev", "testing", "eval"])
def test_folders_of_splits_are_the_splits(filled, split):
    folder = filled("train/a/1.jpg", "train/b/2.jpg", f"{split}/3.jpg", "rest/4.jpg", "5.jpg")
    train, test = read_folder(folder)
    assert names(train, folder) == ["train/a/1.jpg", "train/b/2.jpg"]
    assert names(test, folder) == [f"{split}/3.jpg"]
    filled("test/6.jpg", "val/7.jpg")
    assert names(read_folder(folder)[1], folder)[0] == "test/" + ("3.jpg" if split == "test" else "6.jpg")


@pytest.mark.parametrize(
    ("train_name", "test_name"),
    [("Training", "Testing"), ("images/train", "images/val"), ("train2017", "val2017"), ("a/train", "b/test_images")],
)
def test_splits_are_found_by_any_name_in_any_depth_and_the_rest_is_told_of(filled, caplog, train_name, test_name):
    folder = filled(f"{train_name}/x/1.jpg", f"{train_name}/2.jpg", f"{test_name}/train/3.jpg", "other/4.jpg")
    train, test = read_folder(folder)
    assert sorted(names(train, folder)) == sorted([f"{train_name}/2.jpg", f"{train_name}/x/1.jpg"])
    assert names(test, folder) == [f"{test_name}/train/3.jpg"]  # the outermost name decides
    assert ["1 of its pictures are left out" in message for message in caplog.messages] == [True]


def test_no_held_out_split_is_trained_on_in_silence(filled, refuses):
    folder = filled("cats/1.jpg", "dogs/2.jpg", "Test/3.jpg")
    with refuses(folder, "a folder named test, but none named train", "rename that to train"):
        read_folder(folder)
    filled("Test/4.jpg")
    assert len(read_folder(folder / "Test")[0]) == 1  # named by the user


def test_a_folder_of_splits_for_testing_alone_is_refused(filled, refuses):
    folder = filled("val/1.jpg")
    with refuses(folder, "are in a folder named val, none in one named train", "give the folder val"):
        read_folder(folder)
    filled("test/2.jpg")
    with refuses(folder, "in a folder named test and val, none", "give the folder test"):
        read_folder(folder)


def test_a_split_alone_is_none(filled):
    folder = filled("train/1.jpg", "train/2.jpg", "other/3.jpg")
    train, test = read_folder(folder)
    assert (names(test, folder), len(train)) == (["other/3.jpg"], 2)


def test_links_are_followed_but_not_in_circles(filled, tmp_path):
    folder = filled("a/1.jpg", "a/2.jpg")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "3.jpg").touch()
    (folder / "linked").symlink_to(tmp_path / "far")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "b").symlink_to("b")
    (folder / "c.jpg").symlink_to("c.jpg")
    (folder / "lost.jpg").symlink_to("nowhere.jpg")
    train, test = read_folder(folder)
    assert names(test, folder) + names(train, folder) == ["a/1.jpg", "a/2.jpg", "c.jpg", "linked/3.jpg", "lost.jpg"]
    with pytest.raises(FileNotFoundError):  # told when it is read, by its name
        train.encoded(3)


def test_names_of_any_bytes_are_read_and_shown(tmp_path):
    for name in (b"\xff.jpg", b"a\nb.png"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(name)
    train, test = read_folder(tmp_path)
    assert (test.name(0), test.encoded(0)) == (f"{tmp_path}/a\\nb.png", b"a\nb.png")
    assert (train.name(0), train.encoded(0)) == (f"{tmp_path}/\\xff.jpg", b"\xff.jpg")


def test_another_process_can_read_them(filled):
    folder = filled("1.jpg", "2.jpg")
    train, _ = pickle.loads(pickle.dumps(read_folder(folder)))
    assert train.encoded(0) == b"2.jpg"


def test_what_is_gone_is_an_os_error(tmp_path):
    files = FilePictures(tmp_path, NameList([b"gone.jpg"]))
    with pytest.raises(OSError, match="No such file"):
        files.encoded(0)
    with pytest.raises(IndexError):
        files.encoded(1)


def test_refuses_a_folder_without_pictures(filled, refuses):
    folder = filled("notes.txt", "a/._1.jpg")
    with refuses(folder, "no picture", ".jpg, .jpeg, .png, .webp"):
        read_folder(folder)
    filled("train/1.jpg", "test/notes.txt")
    with refuses(folder / "test", "no picture"):
        read_folder(folder)


def test_refuses_one_picture(filled, refuses):
    folder = filled("1.jpg")
    with refuses(folder, "1 image", "at least 2"):
        read_folder(folder)


def test_refuses_what_cannot_be_read(filled, tmp_path, refuses, monkeypatch):
    with refuses(tmp_path / "none", "No such file"):
        read_folder(tmp_path / "none")
    folder = filled("1.jpg", "2.jpg", "locked/3.jpg")
    scandir = os.scandir

    def denied(path):  # root, in a container, may read everything
        if path.endswith(b"locked/"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", denied)
    with refuses(folder / "locked", "Permission denied", "take it out"):
        read_folder(folder)


def test_files_outside_are_told_of_once(filled, tmp_path, caplog, monkeypatch):
    folder = filled("train/a.png", "train/b/c.png", "train/x.png", "test/y.png")
    (tmp_path / "elsewhere").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "elsewhere" / name).write_text(name)
    (folder / "train" / "inside.png").symlink_to("b/c.png")
    (folder / "train" / "up.png").symlink_to("../test/y.png")  # out of its split, but not of the data set
    read_folder(folder)
    assert caplog.messages == []
    (folder / "train" / "link.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    train, _ = read_folder(folder)
    assert train.encoded(3).decode() == "1.png"
    assert caplog.messages == [f"{folder}: 1 of its files lies outside of it, {tmp_path}/elsewhere/1.png"]
    caplog.clear()
    (folder / "train" / "all").symlink_to("../../elsewhere")
    read_folder(folder)
    assert caplog.messages == [f"{folder}: 3 of its files lie outside of it, {tmp_path}/elsewhere/1.png for one"]
    monkeypatch.setenv("RANK", "1")
    read_folder(folder)
    assert len(caplog.messages) == 1


def test_a_folder_may_be_a_link(filled, tmp_path, caplog):
    folder = filled("a.png", "b.png")
    (tmp_path / "link").symlink_to(folder)
    read_folder(tmp_path / "link")
    assert caplog.messages == []


def test_links_are_followed_to_their_end(filled, tmp_path, caplog):
    folder = filled("a.png", "b/c.png")
    (tmp_path / "far.png").touch()
    (folder / ".hidden").symlink_to("../far.png")
    (folder / "b" / "by-hidden.png").symlink_to("../.hidden")
    (folder / "b" / "inside.png").symlink_to("../b/../a.png")
    (folder / "b" / "twice.png").symlink_to("inside.png")
    (folder / "b" / "broken.png").symlink_to("none.png")
    read_folder(folder)
    assert caplog.messages == [f"{folder}: 1 of its files lies outside of it, {tmp_path}/far.png"]
