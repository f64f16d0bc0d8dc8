"""Lists of pictures."""

import pytest

from fastvae.data.formats.listing import read_list


@pytest.fixture
def listed(tmp_path):
    """Makes files, and a list of what is given."""

    def make(content, *files):
        for file in files:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text(file)
        (tmp_path / "list.txt").write_bytes(content)
        return tmp_path / "list.txt"

    return make


def test_reads_what_is_listed_in_its_order(listed, tmp_path):
    path = listed(
        f"\ufeffz.jpg\r\n\n# a remark\n  Ü/b c.png \n{tmp_path}/a.jpg\nz.jpg".encode(),
        "z.jpg", "Ü/b c.png", "a.jpg", "unlisted.jpg",
    )  # fmt: skip
    train, test = read_list(path)
    assert [test.encoded(0).decode(), *(train.encoded(place).decode() for place in range(3))] == [
        "z.jpg", "Ü/b c.png", "a.jpg", "z.jpg",
    ]  # fmt: skip
    assert train.name(0) == f"{tmp_path}/Ü/b c.png"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_encoding_with_a_mark_and_any_line_end_is_read(listed, encoding, end):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path = listed((mark + end.join(["Ü.jpg", "", "b c.jpg"])).encode(encoding), "Ü.jpg", "b c.jpg")
    train, test = read_list(path)
    assert (test.encoded(0).decode(), train.encoded(0).decode()) == ("Ü.jpg", "b c.jpg")


def test_a_line_is_a_name_as_it_is_before_its_blanks_and_quotes_are_left_out(listed):
    names = ["a.jpg", "b c.jpg", "d.jpg ", "'e.jpg'", "f.jpg"]
    lines = ["a.jpg  ", '"b c.jpg"', "d.jpg ", "'e.jpg'", "\t'f.jpg' "]
    train, test = read_list(listed("\r\n".join(lines).encode(), *names))
    assert [test.encoded(0).decode(), *(train.encoded(place).decode() for place in range(4))] == names


def test_refuses_broken_utf_16(listed, refuses):
    with refuses("list.txt", "begins as UTF-16", "save it in UTF-8"):
        read_list(listed("a.jpg\nb.jpg".encode("utf-16") + b"x", "a.jpg", "b.jpg"))
    with refuses("list.txt", "UTF-16 without a byte order mark", "save it in UTF-8"):
        read_list(listed("a.jpg\nb.jpg".encode("utf-16-le"), "a.jpg", "b.jpg"))


def test_refuses_missing_files(listed, refuses, tmp_path):
    path = listed(b"a.jpg\nno.jpg\nfolder\nneither.jpg", "a.jpg", "folder/b.jpg")
    with refuses(path, "3 of its 4 lines", "'no.jpg'", f"relative to {tmp_path}"):
        read_list(path)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "no images"), (b"# a.jpg\n\n", "no images"), (b"a.jpg", "1 image")]
)
def test_refuses_too_few(listed, refuses, content, words):
    with refuses("list.txt", words, "at least 2"):
        read_list(listed(content, "a.jpg"))


def test_refuses_what_is_no_list(tmp_path, refuses):
    with refuses(tmp_path / "none.txt", "No such file"):
        read_list(tmp_path / "none.txt")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 4)
    with refuses(tmp_path / "binary.txt", "name no file"):
        read_list(tmp_path / "binary.txt")


def test_files_outside_are_told_of(listed, tmp_path, caplog):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_text(name)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.jpg").symlink_to("../a.jpg")
    (tmp_path / "in" / "folder").symlink_to("..")
    (tmp_path / "in" / "x.jpg").touch()
    content = f"x.jpg\n../in/x.jpg\n{tmp_path}/in/x.jpg\n../b.jpg\n{tmp_path}/a.jpg\nlink.jpg\nfolder/a.jpg\n"
    (tmp_path / "in" / "list.txt").write_text(content)
    read_list(tmp_path / "in" / "list.txt")
    assert caplog.messages == [f"{tmp_path}/in/list.txt: 4 of its files lie outside of it, {tmp_path}/b.jpg for one"]
