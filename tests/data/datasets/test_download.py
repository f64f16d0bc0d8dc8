"""Downloads go to a folder that nobody else can write to."""

from fastvae.data.datasets.download import download_folder


def test_downloads_are_read_from_a_folder_of_ones_own_alone(tmp_path, monkeypatch, refuses):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert download_folder("mnist").stat().st_mode & 0o777 == 0o700
    (tmp_path / "fastvae").chmod(0o777)
    with refuses("mnist", tmp_path / "fastvae", "can be written by others"):
        download_folder("mnist")
