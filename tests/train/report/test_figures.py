"""The pictures of a run: grey levels and places of tiles; and curves that show the lines of metrics.jsonl."""

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from fastvae.train.report import figures
from fastvae.train.report.figures import reconstruction_grid, sample_grid, write_curves, write_image

SIDE, MARGIN = 60, 2  # pixels; pictures of this side are not enlarged


def tile(grid, row, column):
    """Return one picture of a grid, (3, SIDE, SIDE)."""
    top, left = (MARGIN + place * (SIDE + MARGIN) for place in (row, column))
    return grid[:, top : top + SIDE, left : left + SIDE]


def plain(*values, dtype=torch.float32):
    """Return grey pictures of one value each, (N, 1, SIDE, SIDE)."""
    return torch.tensor(values, dtype=dtype)[:, None, None, None].expand(-1, 1, SIDE, SIDE)


@pytest.mark.parametrize(("dtype", "values"), [(torch.uint8, (0, 51, 255)), (torch.float32, (0.0, 0.2, 1.0))])
def test_uint8_is_read_over_255_and_floats_as_they_are(dtype, values):
    grid = sample_grid(plain(*values, dtype=dtype))
    assert grid.shape == (3, SIDE + 2 * MARGIN, 3 * (SIDE + MARGIN) + MARGIN)
    for column, value in enumerate((0.0, 0.2, 1.0)):
        torch.testing.assert_close(tile(grid, 0, column), torch.full((3, SIDE, SIDE), value))


def test_what_is_beyond_the_pixels_is_clipped():
    grid = sample_grid(plain(-0.5, 1.5))
    assert tile(grid, 0, 0).max() == 0
    assert tile(grid, 0, 1).min() == 1


def test_pictures_fill_row_by_row_and_reconstructions_stand_under_theirs():
    values = [number / 20 for number in range(10)]
    grid = sample_grid(plain(*values), columns=4)
    assert [tile(grid, n // 4, n % 4).mean().item() for n in range(10)] == pytest.approx(values)
    real = plain(0.1, 0.2, 0.3)
    made = plain(0.6, 0.7, 0.8)
    grid = reconstruction_grid(real, made, columns=2)
    rows = [[tile(grid, row, column).mean().item() for column in range(2)] for row in range(2)]
    assert rows == [pytest.approx([0.1, 0.2]), pytest.approx([0.6, 0.7])]


def test_a_picture_is_written_as_it_is(tmp_path):
    grid = torch.zeros(3, 4, 6)
    grid[0, 1, 2] = 1.0
    grid[1, 2, 3] = 0.5
    grid[2, 3, 5] = 0.2
    assert write_image(grid, tmp_path / "p.png") == tmp_path / "p.png"
    read = pil_to_tensor(Image.open(tmp_path / "p.png"))
    assert read.shape == (3, 4, 6)
    found = {tuple(place): read[tuple(place)].item() for place in read.nonzero().tolist()}
    assert found == {(0, 1, 2): 255, (1, 2, 3): 127, (2, 3, 5): 51}


def test_colours_are_kept_and_a_fourth_channel_is_not():
    picture = torch.stack([torch.full((SIDE, SIDE), value) for value in (0.1, 0.2, 0.3, 0.9)])[None]
    assert tile(sample_grid(picture), 0, 0).mean((1, 2)).tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert tile(sample_grid(picture[:, :2]), 0, 0).mean((1, 2)).tolist() == pytest.approx([0.1] * 3)


def test_curves_are_the_lines_of_each_split(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "write_figure", lambda figure, path, **options: drawn.append(figure))
    terms = {"train": {"loss": 9.0, "nll": 7.0, "kl": 2.0}, "test": {"loss": 8.0, "nll": 5.0, "kl": 3.0}}
    metrics = [
        {"epoch": epoch, "split": split, **{name: value / epoch for name, value in terms[split].items()}}
        for epoch in (1, 2)
        for split in ("train", "test")
    ]
    write_curves(metrics, tmp_path / "loss.png")
    axes = drawn[0].axes
    assert [axis.get_title() for axis in axes] == ["loss (test: negative ELBO)", "reconstruction (nll)", "KL"]
    for axis, name in zip(axes, ("loss", "nll", "kl"), strict=True):
        assert axis.get_ylabel() == "nats per sample"
        for line, split in zip(axis.lines, ("train", "test"), strict=True):
            assert line.get_label() == split
            assert list(line.get_xdata()) == [1, 2]
            assert list(line.get_ydata()) == [terms[split][name], terms[split][name] / 2]
