"""Files of users are opened with care: bombs, objects, cut archives and odd separators, each in one line."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fm_science.cells import cells, number, table_hint
from fm_science.errors import UserError
from fm_science.files import (
    Arrays,
    Dropped,
    read_bytes,
    read_dropped,
    read_each,
    read_text,
    write_dropped,
)


def zipped(file: Path, shape: tuple[int, ...], zeros: int) -> Path:
    """A .npz file whose only array announces ``shape`` float64 and holds so many bytes of zeros."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("x.npy", head.getvalue() + bytes(zeros))
    return file


def test_a_bomb_is_refused_by_its_header(tmp_path):
    """What unpacks to 0.3 GB from 1 MB is refused as 4 GB from 4 MB are; nothing of it is unpacked."""
    file = zipped(tmp_path / "bomb.npz", (37 << 20,), 300 << 20)
    assert file.stat().st_size < 2e6
    with pytest.raises(ValueError, match=r"MB unpack to 0\.3 GB or more: no measured data pack so tightly"):
        Arrays(file)


def test_an_array_must_be_as_long_as_it_says(tmp_path):
    with pytest.raises(ValueError, match=r"x\.npy is cut short"):
        Arrays(zipped(tmp_path / "lie.npz", (1 << 40,), 1 << 20))


def test_headers_are_read_and_arrays_when_asked_for(tmp_path):
    odd = {"o": np.array([{}], dtype=object), "w": ["a"], "c": [1j], "b": [True]}
    np.savez(tmp_path / "a.npz", x=np.arange(6.0).reshape(2, 3), **odd)
    stored = Arrays(tmp_path / "a.npz")
    assert [*stored] == ["x", "o", "w", "c", "b"]
    assert stored.headers["x"].shape == (2, 3)
    assert stored.numbers("x").tolist() == [[0, 1, 2], [3, 4, 5]]
    for name, words in {"o": "Python objects", "w": "text", "c": "complex", "b": "true and false"}.items():
        with pytest.raises(ValueError, match=words):
            stored.numbers(name)
    with pytest.raises(ValueError, match="never loaded"):
        stored["o"]
    np.save(tmp_path / "b.npy", np.ones(3))
    assert Arrays(tmp_path / "b.npy").numbers("").tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x03\x04" + bytes(40), b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{", b"x"]
)
def test_files_that_are_no_arrays(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        Arrays(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


def test_texts_in_any_coding(tmp_path):
    for coding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
        (tmp_path / "a.txt").write_bytes("é\r\nb\rc\n".encode(coding))
        assert read_text(tmp_path / "a.txt") == "é\nb\nc\n"
    (tmp_path / "a.txt").write_bytes(gzip.compress(b"abc"))
    assert read_text(tmp_path / "a.txt") == "abc"
    (tmp_path / "a.txt").write_bytes(gzip.compress(bytes(range(256)))[:-9])
    with pytest.raises(ValueError, match="cut short"):
        read_bytes(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes(bytes(9))
    with pytest.raises(ValueError, match="binary, not text"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b\n1,2\n", [["a", "b"], ["1", "2"]]), ("a;b\n1,5;2\n", [["a", "b"], ["1.5", "2"]]),
        ("a\tb\n1\t2\n", [["a", "b"], ["1", "2"]]), ("1 2\n 3  4\n", [["1", "2"], ["3", "4"]]),
        ('"a","b c"\n1,2\n', [["a", "b c"], ["1", "2"]]), ("# a,b\n1,2\n", [["a", "b"], ["1", "2"]]),
        ("# of K\na,b\n1,2\n", [["a", "b"], ["1", "2"]]),
        ("# f,0,1\na,1,2\n", [["f", "0", "1"], ["a", "1", "2"]]), ("# m, K\na,b\n1,2\n", [["a", "b"], ["1", "2"]]),
        ("# so it is\n1 2 3\n", [["so", "it", "is"], ["1", "2", "3"]]), ("# x\n\n% y\n1,2\n", [["1", "2"]]),
        ("a b\n", [["a", "b"]]), ("1\n2\n", [["1"], ["2"]]), (",x\n0,1\n,\n", [["", "x"], ["0", "1"]]),
    ],
)  # fmt: skip
def test_cells(text, rows):
    assert cells(text) == rows


def test_numbers():
    assert [number(w) for w in ("1", "-.5e3", "1.5D+01", "2d0")] == [1, -500, 15, 2]
    for word in ("", "1,5", "one", "0x10", "1.0*^-6"):
        with pytest.raises(ValueError, match="is no number"):
            number(word)


def test_only_mixed_columns_are_a_table():
    mixed = [["name", "mass"], ["Ada", "1"], ["Bob", "2"]]
    assert "domain=table" in table_hint(mixed)
    for rows in (mixed[:2], [["x", "y"], ["1", "2"], ["3", "4"]], [["1", "2"], *mixed[1:]], [*mixed, ["Eve"]]):
        assert table_hint(rows) == ""


def test_what_is_left_out_is_listed(tmp_path):
    rows = [Dropped("a,b.pdb", "A", "chain break"), Dropped("c.csv", "", "empty")]
    file = write_dropped(rows, tmp_path / "run" / "dropped.csv")
    assert file.read_text().splitlines() == ["file,part,reason", '"a,b.pdb",A,chain break', "c.csv,,empty"]
    assert read_dropped(file) == rows


def test_one_file_stops_no_folder_but_a_named_one_is_refused():
    def reader(file: Path) -> list[str]:
        if "bad" in file.name:
            raise UserError(f"{file}: no good")
        return [file.name]

    files, dropped = [Path("a"), Path("bad"), Path("b")], []
    assert read_each(files, reader, dropped=dropped) == ["a", "b"]
    assert dropped == [Dropped("bad", "", "no good")]
    with pytest.raises(UserError, match="no good"):
        read_each(files, reader, named=[Path("bad")])
    with pytest.raises(UserError, match="and 1 more files"):
        read_each([Path("bad"), Path("bad2")], reader)
