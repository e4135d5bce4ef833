"""Images in files come back as they were: every grey level, every class, no contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from fm_science.errors import UserError
from fm_science_domains.image import build
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
    assert len(read(files)) == 24
    assert trajectory([images, images, images], tmp_path)[0].is_file()
    (tmp_path / "sampling.yaml").touch()
    assert len(read([tmp_path])) == 24
    step = tmp_path / "step-000010"
    write_all(images, step)  # validation in the midst of training
    assert len(read([tmp_path])) == 24
    assert len(read([step])) == 12


def test_a_picture_is_read_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    for name in ("sheet.png", "sheet_music.PNG", "ways.jpg", "waysides/01.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(np.zeros((4, 4), np.uint8)).save(folder / name)
        assert len(read([folder / name])) == 1
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 4, 4), np.uint8))
    (tmp_path / "a.npz").rename(folder / "A.NPZ")
    assert len(read([folder])) == 7


def test_sixteen_bits_and_floats_become_eight_bits(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Pillow.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "i16.png")
    Pillow.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "i16.tif")
    Pillow.fromarray(levels.astype(np.int32) * 257).save(tmp_path / "i32.tif")
    Pillow.fromarray((levels / 255).astype(np.float32)).save(tmp_path / "f.tif")
    for name in ("i16.png", "i16.tif", "i32.tif", "f.tif"):
        assert load([tmp_path / name]).levels[0, 0].tolist() == levels.tolist(), name
    for name, values in {"wide.tif": levels.astype(np.float32), "deep.tif": levels.astype(np.int32) * 10_000}.items():
        Pillow.fromarray(values).save(tmp_path / name)
        with pytest.raises(UserError, match=r"its values go from 0 to .* 16 bits, or floats in \[0, 1\]"):
            load([tmp_path / name])


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    x = np.zeros((4, 6, 3), np.uint8)
    x[0] = 255
    exif = Pillow.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by a quarter to see
    Pillow.fromarray(x).save(tmp_path / "a.png", exif=exif)
    levels = load([tmp_path / "a.png"]).levels
    assert levels.shape == (1, 3, 6, 4)
    assert levels[0, 0, :, -1].unique().tolist() == [255]


def test_a_label_kept_inside_is_a_number_or_nothing(tmp_path: Path) -> None:
    about = PngInfo()
    about.add_text("label", "cat")
    Pillow.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png", pnginfo=about)
    assert read([tmp_path])[0].label is None
    with pytest.raises(UserError, match="class number 3, but the training images have 2 classes"):
        read(write([Image(torch.zeros(1, 4, 4), 3)], tmp_path / "b"), classes=("cat", "dog"))


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


def animals(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(2):
            Pillow.fromarray(np.full((4, 4), len(name), np.uint8)).save(folder / name / f"{i}.png")
    return str(folder)


def test_classes_of_other_folders_are_those_of_training(tmp_path: Path) -> None:
    source, apart = animals(tmp_path / "tr", "cat", "dog", "eel"), animals(tmp_path / "te", "dog", "eel")
    found = sets(Data(source=source, held_out=apart))
    assert found.held_out.labels is not None
    assert found.held_out.labels.tolist() == [1, 1, 2, 2]
    assert found.held_out.classes == found.train.classes == ("cat", "dog", "eel")
    read_so = build(data={"source": source}).read
    assert [image.label for image in read_so([Path(apart)])] == [1, 1, 2, 2]
    assert [image.label for image in read_so([Path(apart) / "eel"])] == [2, 2]
    strange = animals(tmp_path / "strange", "cat", "dgo")
    with pytest.raises(UserError, match=r"class 'dgo', which no training image has \(did you mean 'dog'"):
        sets(Data(source=source, held_out=strange))
    with pytest.raises(UserError, match="class 'dgo'"):
        read_so([Path(strange)])
    assert [image.label for image in build(data={"source": source, "labels": False}).read([Path(strange)])] == [
        None
    ] * 4


def test_values_of_labels_are_classes_once_over_all_files(tmp_path: Path) -> None:
    for name, y in {"a": [0, 1], "b": [1, 2], "c": [7, 3], "d": [2, 0]}.items():
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((2, 4, 4), np.uint8), y=y)
    both = load([tmp_path / "a.npz", tmp_path / "b.npz"])
    assert both.labels is not None
    assert (both.labels.tolist(), both.classes) == ([0, 1, 1, 2], ("0", "1", "2"))
    far = load([tmp_path / "c.npz"])
    assert far.labels is not None
    assert (far.labels.tolist(), far.classes) == ([1, 0], ("3", "7"))
    (tmp_path / "tr").mkdir()
    for name in "ab":
        (tmp_path / f"{name}.npz").rename(tmp_path / "tr" / f"{name}.npz")
    found = sets(Data(source=str(tmp_path / "tr"), held_out=str(tmp_path / "d.npz")))
    assert found.held_out.labels is not None
    assert (found.held_out.labels.tolist(), found.classes) == ([2, 0], 3)
    np.savez(tmp_path / "e.npz", x=np.zeros((2, 4, 4), np.uint8), y=[0.5, 1])
    with pytest.raises(UserError, match="labels must be whole numbers"):
        load([tmp_path / "e.npz"])


def test_values_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    x = np.zeros((2, 4, 4))
    x[0, 1, 2] = np.nan
    np.savez(tmp_path / "a.npz", x=x)
    with pytest.raises(UserError, match=r"or floats in \[0, 1\]; it is float64, nan to nan"):
        load([tmp_path / "a.npz"])


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


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.bin", "a.png", "a.tif", "a.gif"])
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
