"""Anything at all: whatever words are typed and whatever bytes a file holds, the answer is a value or one clear line.

The inputs are drawn by hypothesis, the same ones in every run.
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fm_science import launch
from fm_science.cells import cells, number
from fm_science.checkpoints import read_checkpoint
from fm_science.domain import group, option
from fm_science.errors import OptionError, UserError
from fm_science.files import Arrays, read_bytes, read_text
from fm_science.plugins import find
from fm_science.prepared import Prepared
from fm_science.samples import read_record
from fm_science.storage import load_tree, load_yaml
from fm_science.tables import cell, plain

few = settings(max_examples=40, derandomize=True, deadline=None, database=None,
               suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
fewer = settings(few, max_examples=6)

KEYS = st.sampled_from(["data.points", "seed", "run", "trainer.lr", "a", "", "data", "+a", "~a", "++b", "hydra.x", "é"])
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
SYMBOLS = st.text("ab1,.:=[]{}()'\"\\$~+-*/ \n#%!&|<>@?^`", max_size=10)
WORDS = st.one_of(TEXT, SYMBOLS, st.builds("{}={}".format, KEYS, st.one_of(TEXT, SYMBOLS)))


def explained(error: Exception, word: str = "") -> None:
    """An error says something, in one line."""
    assert len(str(error).strip()) > 5
    assert word in str(error)


@few
@given(st.lists(WORDS, max_size=4))
def test_any_words_are_sorted_or_refused(words: list[str]) -> None:
    try:
        found = launch.words(words)
        launch.check(found, {"data": {"points": 3}, "seed": 0, "run": "x"})
        items = launch.parse(found.overrides)
    except UserError as error:
        explained(error)
    else:
        assert len(items) == len(found.overrides)
        assert len(found.paths) + len(found.overrides) <= len(words)


@few
@given(st.sampled_from(["run", "seed", "a"]), TEXT.filter(lambda text: not set(text) & set("\n\r\\'")))
def test_quoted_text_comes_back_as_it_was(key: str, text: str) -> None:
    (item,) = launch.parse((f"{key}='{text}'",))
    assert item.value() == text


@dataclass(frozen=True)
class Options:
    """One of each kind."""

    whole: int = option(3, "a number", low=1, high=9)
    real: float = option(0.5, "a number", low=0.0)
    maybe: float | None = option(None, "a number or none")
    word: str = option("a", "a word", choices=("a", "b"))
    either: int | str = option("auto", "a number or a word")
    switch: bool = option(False, "yes or no")


NUMBERS = st.floats(allow_subnormal=False)  # training flushes subnormal numbers in the whole process
share = partial(st.floats, allow_subnormal=False)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), NUMBERS, TEXT, st.lists(st.integers(), max_size=2),
                   st.dictionaries(TEXT, st.integers(), max_size=2), st.binary(max_size=3))  # fmt: skip


@few
@given(st.dictionaries(st.one_of(st.sampled_from(["whole", "real", "maybe", "word", "either", "switch"]), TEXT), VALUES,
                       max_size=3))  # fmt: skip
def test_any_values_make_options_or_are_refused(values: dict[str, Any]) -> None:
    try:
        made = group(Options, values, "group")
    except OptionError as error:
        explained(error, "group.")
        return
    assert type(made.whole) is int
    assert 1 <= made.whole <= 9
    assert 0 <= made.real < float("inf")
    assert made.maybe is None or abs(made.maybe) < float("inf")
    assert (made.word in "ab", type(made.switch)) == (True, bool)


@few
@given(st.binary(max_size=400), st.sampled_from([b"", b"\x1f\x8b", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\xff\xfe"]))
def test_any_bytes_are_read_or_refused_in_one_line(data: bytes, start: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x"
        file.write_bytes(start + data)
        for read, errors in ((read_bytes, ValueError), (read_text, ValueError), (load_yaml, UserError),
                             (load_tree, UserError), (lambda f: Arrays(f)[""], (ValueError, KeyError))):  # fmt: skip
            try:
                read(file)
            except errors as error:
                explained(error)


@few
@given(st.text(max_size=60))
def test_any_text_has_cells(text: str) -> None:
    try:
        found = cells(text)
    except ValueError as error:
        explained(error)
    else:
        assert all(isinstance(word, str) for row in found for word in row)


@few
@given(st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_numbers_are_read_as_they_are_written(value: float) -> None:
    assert number(repr(value)) == value
    assert number(f" {value!r} ".strip()) == value


@few
@given(TEXT)
def test_any_name_survives_a_table(text: str) -> None:
    assert plain(str(cell(text))) == text


def packed(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=values)
    return stream.getvalue()


SHAPES = st.lists(st.integers(0, 5), max_size=4)
KINDS = st.sampled_from(["<f8", "<f4", "<f2", ">f8", "<i4", "u1", "<u2", "?", "<c16", "<U3", "S2", "<M8[s]"])
FILES = {"point_cloud": (".npz", ".csv", ".xyz", ".ply", ".pcd", ".off"), "function": (".npz", ".csv"),
         "image": (".npz", ".png"), "table": (".csv", ".parquet"), "molecule": (".sdf", ".xyz", ".smi"),
         "protein": (".pdb", ".cif", ".bcif")}  # fmt: skip


def read_or_refused(domain: str, name: str, content: bytes) -> None:
    plugin = find(domain)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(content)
        try:
            plugin.build(dict.fromkeys(plugin.options())).read([file])
        except UserError as error:
            explained(error)


@pytest.mark.parametrize("domain", ["point_cloud", "function", "image"])
@fewer
@given(shape=SHAPES, kind=KINDS, byte=st.integers(0, 255))
def test_any_array_is_read_or_refused(domain: str, shape: list[int], kind: str, byte: int) -> None:
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    values = np.frombuffer(bytes([byte]) * size if kind != "<U3" else bytes(size), kind).reshape(shape)
    read_or_refused(domain, "x.npz", packed(values))


LINES = st.lists(st.one_of(st.sampled_from([
    "ATOM      1  CA  ALA A   1       0.000   0.000   0.000  1.00  0.00           C", "loop_", "_atom_site.id", "3",
    "data_x", "C 0 0 0", "$$$$", "M  END", "  1  0  0  0  0  0  0  0  0  0999 V2000", "a,b", "1,2", "ply", "CCO", "OFF",
    "format ascii 1.0", "element vertex 2", "property float x", "end_header", "1e400 nan inf", "FIELDS x y z", "'",
    "POINTS -1",
]), SYMBOLS), max_size=8)  # fmt: skip


@pytest.mark.parametrize("domain", FILES)
@fewer
@given(lines=LINES, which=st.integers(0, 9))
def test_any_lines_are_read_or_refused(domain: str, lines: list[str], which: int) -> None:
    endings = FILES[domain]
    read_or_refused(domain, f"x{endings[which % len(endings)]}", "\n".join(lines).encode())


def valid() -> dict[str, bytes]:
    """Files that are read without complaint, of kinds whose bytes no one writes by hand."""
    from PIL import Image

    draw = np.random.default_rng(0)
    pictures = {}
    for ending, kind in ((".png", "png"), (".tif", "tiff"), (".gif", "gif"), (".bmp", "bmp"), (".jpg", "jpeg")):
        stream = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (5, 4, 3), np.uint8)).save(stream, kind)
        pictures[f"image{ending}"] = stream.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.npy"
        np.save(file, draw.normal(size=(3, 8)))
        npy = file.read_bytes()
    arrays = {f"{domain}.npz": packed(draw.normal(size=(3, 8, 3))) for domain in ("point_cloud", "function")}
    cifar = bytes([3]) + draw.integers(0, 255, 3072, np.uint8).tobytes()
    return {**pictures, **arrays, "function.npy": npy, "image.bin": cifar, "image.npz": packed(np.ones((3, 4, 4)))}


VALID = valid()


@pytest.mark.parametrize("name", VALID)
@fewer
@given(place=share(0, 0.999), value=st.integers(0, 255), end=share(0.2, 1.5))
def test_a_file_with_a_wrong_byte_or_cut_short_is_read_or_refused(
    name: str, place: float, value: int, end: float
) -> None:
    content = bytearray(VALID[name])
    content[int(place * len(content))] = value
    domain, ending = name.split(".")
    read_or_refused(domain, f"x.{ending}", bytes(content[: int(end * len(content))]))


def prepared() -> bytes:
    """A prepared file of two records."""
    from fm_science.prepared import TEXT, Column, text
    from fm_science.records import write_records

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x"
        rows = [{"x": np.ones(3, np.float32), "name": text(name)} for name in "ab"]
        about = {"domain": "point_cloud", "layout": 1, "options": {}, "files": 2}
        write_records(rows, [], {"x": Column("float32"), "name": TEXT}, file, about)
        return file.read_bytes()


PREPARED = prepared()
HEAD = 8 + int.from_bytes(PREPARED[:8], "little")


@settings(few, max_examples=200)
@given(place=st.integers(0, HEAD - 1), value=st.binary(min_size=1, max_size=3), end=share(0.1, 3.0))
def test_a_prepared_file_with_a_wrong_header_is_read_or_refused(place: int, value: bytes, end: float) -> None:
    content = PREPARED[:place] + value + PREPARED[place + len(value) :]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x"
        file.write_bytes(content[: int(end * len(content))])
        try:
            found = Prepared(file)
        except UserError as error:
            explained(error)
        else:
            assert found.columns.keys() <= {"x", "name"} or found.file == file
            assert found.whole() in (True, False)


@few
@given(data=st.binary(max_size=200), start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", PREPARED[:40]]))
def test_any_checkpoint_or_record_is_read_or_refused(data: bytes, start: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "last.ckpt"
        file.write_bytes(start + data)
        for read in (read_checkpoint, read_record):
            try:
                read(file)
            except UserError as error:
                explained(error)
