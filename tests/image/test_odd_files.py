"""Pictures as cameras, microscopes and drawing programs write them: transparency, deep levels, pages, bombs."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from fm_science.errors import UserError
from fm_science_domains.image import build
from fm_science_domains.image.data import Data, sets
from fm_science_domains.image.files import load, read

DISC = ((np.mgrid[:16, :16] - 7.5) ** 2).sum(0) < 30


def transparent(mode: str) -> Pillow.Image:
    """A black disc that is seen, on black that is not."""
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[..., 3] = 255 * DISC
    image = Pillow.fromarray(rgba)
    if mode == "P":
        image = Pillow.fromarray(DISC.astype(np.uint8))
        image.putpalette([0, 0, 0] * 2)
        image.info["transparency"] = 0
        return image
    return image.convert(mode) if mode != "RGBA" else image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("background", ["white", "black"])
def test_what_is_transparent_shows_the_background(tmp_path: Path, mode: str, background: str) -> None:
    transparent(mode).save(tmp_path / "a.png")
    levels = load([tmp_path / "a.png"], background=background).levels[0]
    assert levels.shape == ((1 if mode == "LA" else 3), 16, 16)
    seen = np.where(DISC, 0, 255 if background == "white" else 0)
    assert all(channel.tolist() == seen.tolist() for channel in levels)
    found = build(data={"source": str(tmp_path), "background": background}).read([tmp_path])
    assert float(found[0].pixels.max()) == (1 if background == "white" else -1)


def test_half_transparent_is_blended(tmp_path: Path) -> None:
    Pillow.fromarray(np.full((4, 4, 4), (255, 0, 0, 51), np.uint8)).save(tmp_path / "a.png")
    assert load([tmp_path / "a.png"]).levels[0, :, 0, 0].tolist() == [255, 204, 204]


def deep(file: Path, top: int, shape: tuple[int, int] = (16, 16)) -> np.ndarray:
    """A picture of 16 bits whose values go from 0 to ``top``."""
    values = np.linspace(0, top, shape[0] * shape[1]).round().astype(np.uint16).reshape(shape)
    Pillow.fromarray(values).save(file)
    return values


@pytest.mark.parametrize(
    ("top", "white"), [(200, 255), (1000, 1023), (4095, 4095), (3000, 4095), (16000, 16383), (65535, 65535)]
)
@pytest.mark.parametrize("kind", ["tif", "png", "npz", "npy"])
def test_white_is_the_end_of_the_range_that_holds_all(
    tmp_path: Path, top: int, white: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    values = deep(tmp_path / "a.tif", top)
    file = tmp_path / f"a.{kind}"
    if kind == "png":
        Pillow.fromarray(values).save(file)
    elif kind == "npz":
        np.savez(file, x=values[None])
    elif kind == "npy":
        np.save(file, values)
    stack = load([file])
    assert stack.levels[0, 0].tolist() == np.round(values * (255 / white)).astype(int).tolist()
    assert (f"white is taken to be {white}" in caplog.text) == (white not in (255, 65535))
    given = load([file], white=65535).levels[0, 0]
    assert given.tolist() == np.round(values / 257).astype(int).tolist()
    if top > 255:
        with pytest.raises(UserError, match=f"values up to {top} lie beyond data.white=255"):
            load([file], white=255)


def test_one_white_over_a_folder_and_its_held_out_pictures(tmp_path: Path) -> None:
    for place in ("train", "deep_validation"):
        (tmp_path / place).mkdir()
    bright = deep(tmp_path / "train" / "a.tif", 4095)
    dark = deep(tmp_path / "train" / "b.tif", 900)
    deep_validation = deep(tmp_path / "deep_validation" / "c.tif", 500)
    found = sets(Data(source=str(tmp_path / "train"), held_out=str(tmp_path / "deep_validation")))
    wanted = [np.round(v * (255 / 4095)).astype(int).tolist() for v in (bright, dark, deep_validation)]
    assert [*found.train.levels[:, 0].tolist(), found.held_out.levels[0, 0].tolist()] == wanted
    domain = build(data={"source": str(tmp_path / "train")})
    levels = (domain.read([tmp_path / "deep_validation" / "c.tif"])[0].pixels[0] + 1) * 127.5
    assert levels.round().int().tolist() == wanted[2]


def test_pages_are_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pages = [Pillow.fromarray(np.full((4, 4), 20 * k, np.uint8)) for k in range(10)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    found = read([tmp_path / "a.tif"])
    assert [f.name for f in found] == [f"a_{k:04d}" for k in range(10)]
    assert [round(float(f.pixels.mean() + 1) * 127.5) for f in found] == [20 * k for k in range(10)]
    deep_pages = [Pillow.fromarray(np.full((4, 4), 400 * k, np.uint16)) for k in range(3)]
    deep_pages[0].save(tmp_path / "b.tif", save_all=True, append_images=deep_pages[1:])
    assert load([tmp_path / "b.tif"]).levels[:, 0, 0, 0].tolist() == [0, 100, 199]
    pages[0].save(tmp_path / "c.gif", save_all=True, append_images=pages[1:])
    assert len(read([tmp_path / "c.gif"])) == 1
    assert "the other 9 are left out" in caplog.text


def bomb(file: Path, side: int) -> Path:
    """A PNG of 1 bit whose header announces ``side`` x ``side`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)
    return file


def test_one_unreadable_picture_does_not_stop_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for k in range(3):
        Pillow.fromarray(np.full((4, 4), 50 * k, np.uint8)).save(folder / f"good{k}.png")
    whole = (folder / "good0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[:40])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.tif").write_text("no picture")
    (folder / "array.npz").write_bytes(b"PK")
    bomb(folder / "huge.png", 20_000)
    stack = load([folder])
    assert stack.names == ("good0", "good1", "good2")
    bad = sorted(Path(d.file).name for d in stack.dropped)
    assert bad == ["array.npz", "cut.png", "empty.jpg", "huge.png", "text.tif"]
    assert all(d.reason and "\n" not in d.reason for d in stack.dropped)
    assert "5 of 8 files cannot be read" in caplog.text
    for name in bad:
        with pytest.raises(UserError, match=name):
            read([folder / name])
    assert len(sets(Data(source=str(folder))).dropped) == 5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((2, 4, 4), bool), "true and false"), (np.zeros((2, 4, 4), complex), "complex"),
        (np.full((2, 4, 4), "a"), "text"), (np.array([[[{}]]], dtype=object), "Python objects"),
        (np.zeros((0, 4, 4), np.uint8), "is empty"), (np.full((2, 4, 4), -3), "0 to 65535"),
        (np.full((2, 4, 4), 70_000), "0 to 65535"), (np.full((2, 4, 4), 255.0), r"floats in \[0, 1\]"),
        (np.zeros((2, 7, 4, 4), np.uint8), "expected images"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_images(tmp_path: Path, values: np.ndarray, words: str) -> None:
    np.savez(tmp_path / "a.npz", x=values)
    with pytest.raises(UserError, match=words):
        read([tmp_path / "a.npz"])


def test_arrays_alone(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    for part, count, channels in ((x, 5, 3), (x[..., 0], 5, 1), (x[0], 1, 3), (x[0, :, :, 0], 1, 1)):
        np.save(tmp_path / "a.npy", part)
        levels = load([tmp_path / "a.npy"]).levels
        assert levels.shape == (count, channels, 8, 8)
        assert torch.equal(levels[0, 0], torch.from_numpy(x[0, :, :, 0]))


def test_any_bytes_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    deep(tmp_path / "a.tif", 4000)
    transparent("RGBA").save(tmp_path / "b.png")
    Pillow.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "c.jpg")
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 4, 4), np.uint8))
    whole = {name: (tmp_path / name).read_bytes() for name in ("a.tif", "b.png", "c.jpg", "d.npz")}
    rng = np.random.default_rng(0)
    for k in range(160):
        name = [*whole][k % 4]
        raw = bytearray(whole[name])
        for _ in range(int(rng.integers(1, 6))):
            raw[rng.integers(len(raw))] = rng.integers(256)
        (tmp_path / name).write_bytes(bytes(raw[: rng.integers(len(raw))] if k % 3 == 0 else raw))
        try:
            read([tmp_path / name])
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
