"""Images in files come back as they were: every grey level, every class, no contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from fm_science.errors import UserError
from fm_science_domains.image.data import Data, digits, sets
from fm_science_domains.image.files import Image, load, read, rounded, write
from fm_science_domains.image.report import trajectory, write_all


@pytest.mark.parametrize(("top", "channels"), [(255, 3), (255, 1), (16, 1)])
def test_pictures_keep_levels_and_classes(tmp_path: Path, top: int, channels: int) -> None:
    pixels = rounded(2.4 * torch.rand(5, channels, 6, 6) - 1.2, top)
    files = write([Image(x, k if k else None) for k, x in enumerate(pixels)], tmp_path / "a", first=7)
    assert [f.name for f in files] == [f"image_{k:06d}.png" for k in range(7, 12)]
    assert torch.allclose(torch.stack([i.pixels for i in read(files, top)]), pixels, atol=1e-6)
    labelled = write([Image(x, k) for k, x in enumerate(pixels)], tmp_path / "b")
    assert [i.label for i in read([labelled[0].parent], top)] == [0, 1, 2, 3, 4]


def test_a_sheet_is_drawn_and_never_read(tmp_path: Path) -> None:
    images = [Image(torch.zeros(1, 8, 8)) for _ in range(12)]
    files = write_all(images, tmp_path) + write_all(images, tmp_path, first=12)
    assert (tmp_path / "sheet.png") in files
    assert trajectory([images, images, images], tmp_path)[0].is_file()
    assert len(read([tmp_path])) == 24


def test_folders_of_classes(tmp_path: Path) -> None:
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(3):
            Pillow.fromarray(np.full((6, 9, 3), 100 * k, np.uint8)).save(tmp_path / name / f"{i}.png")
    stack = load([tmp_path], size=4)
    assert stack.classes == ("cat", "dog")
    assert stack.labels is not None
    assert stack.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert stack.levels.shape == (6, 3, 4, 4)
    assert stack.levels[3:].unique().tolist() == [100]


def test_scaling_cuts_the_middle_and_averages(tmp_path: Path) -> None:
    wide = np.zeros((4, 8), np.uint8)
    wide[:, 2:6] = np.array([[0, 200], [100, 0]], np.uint8).repeat(2, 0).repeat(2, 1)
    Pillow.fromarray(wide).save(tmp_path / "wide.png")
    assert load([tmp_path], size=2).levels[0, 0].tolist() == [[0, 200], [100, 0]]


@pytest.mark.parametrize(
    "shape", [(5, 6, 6), (5, 1, 6, 6), (5, 6, 6, 1), (5, 36), (5, 3, 6, 6), (5, 6, 6, 3), (5, 108)]
)
def test_arrays_of_many_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.savez(tmp_path / "a.npz", data=x, labels=np.arange(1, 6))
    stack = load([tmp_path / "a.npz"])
    channels = 3 if 3 in shape or shape[-1] == 108 else 1
    assert stack.levels.shape == (5, channels, 6, 6)
    assert stack.labels is not None
    assert stack.labels.tolist() == [0, 1, 2, 3, 4]
    assert stack.levels.long().sum() == x.astype(int).sum()
    np.savez(tmp_path / "b.npz", data=x / 255.0)
    assert torch.equal(load([tmp_path / "b.npz"]).levels, stack.levels)


def test_batches_of_cifar_and_what_is_held_out_is_not_trained(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (20, 3073)).astype(np.uint8)
    rows[:, 0] = np.arange(20) % 10
    rows[:15].tofile(tmp_path / "data_batch_1.bin")
    rows[15:].tofile(tmp_path / "test_batch.bin")
    found = sets(Data(source=str(tmp_path), held_out=str(tmp_path / "test_batch.bin")))
    assert (len(found.train), len(found.held_out), found.classes) == (15, 5, 10)
    assert torch.equal(found.train.levels.reshape(15, -1), torch.from_numpy(rows[:15, 1:]))


def test_the_shipped_digits() -> None:
    whole = digits()
    assert whole.levels.shape == (1797, 1, 8, 8)
    assert (int(whole.levels.max()), whole.top) == (16, 16)
    assert whole.labels is not None
    assert whole.labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    found = sets(Data())
    assert {*found.train.names}.isdisjoint(found.held_out.names)
    assert len(found.train) + len(found.held_out) == 1797
    assert len(sets(Data(limit=100)).train) == 100


@pytest.mark.parametrize("name", ["a.npz", "a.bin", "a.png"])
def test_what_is_no_image_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=name):
        load([tmp_path / name])


def test_pictures_of_many_sizes_need_a_size(tmp_path: Path) -> None:
    for n in (4, 6):
        Pillow.fromarray(np.zeros((n, n), np.uint8)).save(tmp_path / f"{n}.png")
    with pytest.raises(UserError, match=r"data\.size"):
        load([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        load([tmp_path / "empty"])
