"""Vertices of meshes and points of scans, .ply, .off, .obj and .pcd: one cloud per file, its x, y and z.

The number of points in the header and in the file must agree: a truncated file raises an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fm_science.files import read_bytes, read_text

from .formats import AXES, Clouds, numbers, unlabelled

# ---------------------------------------------------------------------------------------------------------------- ply

PLY = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


@dataclass
class Element:
    """A kind of row of a polygon file. columns: name, type, and the type of a list's length, None for a number."""

    name: str
    count: int
    columns: list[tuple[str, str, str | None]] = field(default_factory=list)

    @property
    def fixed(self) -> bool:
        """Whether all rows have the same size."""
        return all(length is None for _, _, length in self.columns)

    def axes(self) -> list[int]:
        """The columns of x, y and z, in upper or lower case."""
        names = [name.lower() for name, _, _ in self.columns]
        return [names.index(axis) for axis in AXES if axis in names]


def ply(file: Path) -> Clouds:
    """The vertices of a polygon file (Turk 1994), text or binary, anywhere among its elements."""
    head, found, body = read_bytes(file).partition(b"end_header")
    body = body.partition(b"\n")[2]
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    if not found or lines[:1] != [["ply"]]:
        raise ValueError("no header of a .ply file")
    kind = next((line[1] for line in lines if line[:1] == ["format"] and len(line) > 1), "")
    elements = _elements(lines)
    if not any(e.name == "vertex" and e.axes() for e in elements):
        raise ValueError("no vertices with x, y and z")
    before = elements[: [e.name for e in elements].index("vertex") + 1]
    if kind == "ascii":
        return unlabelled(_ascii_vertices(body.decode("ascii", "replace"), before))
    if kind not in ("binary_little_endian", "binary_big_endian"):
        raise ValueError(f"format {kind!r}; expected ascii, binary_little_endian or binary_big_endian")
    return unlabelled(_binary_vertices(body, before, "<" if kind == "binary_little_endian" else ">"))


def _elements(lines: Sequence[Sequence[str]]) -> list[Element]:
    found: list[Element] = []
    for line in lines:
        if line[:1] == ["element"]:
            found.append(Element(line[1], int(line[2])))
        elif line[:1] == ["property"] and found:
            listed = line[1] == "list"
            found[-1].columns.append((line[-1], PLY[line[3 if listed else 1]], PLY[line[2]] if listed else None))
    return found


def _short(wanted: int, have: int) -> ValueError:
    return ValueError(f"{wanted} vertices announced, {have} found")


def _ascii_vertices(text: str, elements: Sequence[Element]) -> np.ndarray:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    vertex, start = elements[-1], sum(e.count for e in elements[:-1])
    rows = lines[start : start + vertex.count]
    if len(rows) < vertex.count or not rows:
        raise _short(vertex.count, len(rows))
    axes = vertex.axes()
    return np.array([numbers(_words(row, vertex, axes), f"vertex {k}") for k, row in enumerate(rows, 1)])


def _words(row: Sequence[str], element: Element, wanted: Sequence[int]) -> list[str]:
    """The texts of some columns of a row, whose lists begin with their length."""
    at, starts = 0, []
    for _, _, length in element.columns:
        starts.append(at)
        at += 1 if length is None else 1 + int(row[at])
    if len(row) < at:
        raise ValueError(f"a vertex of {at} numbers has {len(row)}")
    return [row[starts[k]] for k in wanted]


def _binary_vertices(body: bytes, elements: Sequence[Element], order: str) -> np.ndarray:
    vertex, start = elements[-1], 0
    for e in elements[:-1]:
        if e.fixed:
            start += e.count * np.dtype([(f"c{k}", order + code) for k, (_, code, _) in enumerate(e.columns)]).itemsize
        else:
            *_, start = (start, *(end for _, end in _walk(body, e, order, start)))
    axes = vertex.axes()
    if vertex.fixed:
        table = np.dtype([(f"c{k}", order + code) for k, (_, code, _) in enumerate(vertex.columns)])
        have = max(0, len(body) - start) // table.itemsize
        if have < vertex.count or not vertex.count:
            raise _short(vertex.count, have)
        rows = np.frombuffer(body, table, vertex.count, start)
        return np.stack([rows[f"c{k}"].astype(np.float64) for k in axes], -1)
    found = [[row[k] for k in axes] for row, _ in _walk(body, vertex, order, start)]
    return np.array(found, dtype=np.float64)


def _walk(body: bytes, element: Element, order: str, at: int) -> Iterator[tuple[list[float], int]]:
    """The rows of an element with lists, as its numbers (nan for a list), and the end of each."""
    for k in range(element.count):
        row: list[float] = []
        for _, code, length in element.columns:
            count = 1
            if length is not None:
                count = int(np.frombuffer(body, order + length, 1, at)[0]) if at < len(body) else -1
                at += np.dtype(length).itemsize
            end = at + count * np.dtype(code).itemsize
            if count < 0 or end > len(body):
                raise _short(element.count, k)
            row.append(float(np.frombuffer(body, order + code, 1, at)[0]) if length is None else np.nan)
            at = end
        yield row, at


# ------------------------------------------------------------------------------------------------------------ off, obj


def off(file: Path) -> Clouds:
    """The vertices of a mesh in the Object File Format. The numbers may follow its first word without a gap."""
    words = [re.sub(r"#.*", "", line).split() for line in read_text(file).splitlines()]
    lines = [line for line in words if line]
    head = re.fullmatch(r"(?:ST)?C?N?OFF(\d*)", lines[0][0]) if lines else None
    if not head:
        raise ValueError("no header of an .off file")
    lines[0] = [head[1], *lines[0][1:]] if head[1] else lines[0][1:]
    lines = lines if lines[0] else lines[1:]
    count = int(lines[0][0]) if lines else 0
    return _vertices(lines[1 : 1 + count], count)


def obj(file: Path) -> Clouds:
    """The vertices of a Wavefront mesh: lines ``v x y z``."""
    rows = [line.split()[1:] for line in read_text(file).splitlines() if line.split()[:1] == ["v"]]
    return _vertices(rows, len(rows))


def _vertices(rows: Sequence[Sequence[str]], count: int) -> Clouds:
    if len(rows) < count or not count:
        raise _short(count, len(rows)) if count else ValueError("it has no vertices")
    if any(len(row) < 3 for row in rows):
        raise ValueError("a vertex has fewer than three coordinates")
    return unlabelled(np.array([numbers(row[:3], f"vertex {k}") for k, row in enumerate(rows, 1)]))


# ---------------------------------------------------------------------------------------------------------------- pcd

KINDS = {"F": "f", "I": "i", "U": "u"}


def pcd(file: Path) -> Clouds:
    """A scan of the Point Cloud Library, text or binary. Points that were not measured, NaN, are left out."""
    data = read_bytes(file)
    said = re.search(rb"^DATA[ \t]+(\w+)[ \t]*\r?\n", data, re.MULTILINE)
    head = data[: said.start()] if said else data[:4096]
    words = {line[0].upper(): line[1:] for line in map(str.split, head.decode("ascii", "replace").splitlines()) if line}
    lacking = [name for name in ("FIELDS", "SIZE", "TYPE", "WIDTH") if not words.get(name)]
    if said is None or lacking:
        raise ValueError(f"no header of a .pcd file: it lacks {', '.join([*lacking, *([] if said else ['DATA'])])}")
    names, body, kind = words["FIELDS"], data[said.end() :], said[1].decode().lower()
    counts = [int(c) for c in words.get("COUNT") or ["1"] * len(names)]
    points = int(words["POINTS"][0]) if words.get("POINTS") else int(words["WIDTH"][0])
    axes = [names.index(axis) for axis in AXES if axis in names]
    if not axes:
        raise ValueError(f"its fields are {', '.join(names)}; expected x, y and z among them")
    if kind == "binary":
        codes = [f"<{KINDS[k]}{int(s)}" for k, s in zip(words["TYPE"], words["SIZE"], strict=True)]
        table = np.dtype([(f"c{i}", code, (c,)) for i, (code, c) in enumerate(zip(codes, counts, strict=True))])
        have = len(body) // table.itemsize
        rows = np.frombuffer(body, table, min(points, have))
        x = np.stack([rows[f"c{k}"][:, 0].astype(np.float64) for k in axes], -1)
    elif kind == "ascii":
        starts = [sum(counts[:k]) for k in axes]
        lines = [line.split() for line in body.decode("ascii", "replace").splitlines() if line.strip()][:points]
        have = len(lines)
        x = np.array([numbers([line[k] for k in starts], f"point {i}") for i, line in enumerate(lines, 1)])
    else:
        raise ValueError(f"its data are {kind}; save them as ascii or binary")
    if have < points or not points:
        raise ValueError(f"{points} points announced, {have} found")
    return unlabelled(x[~np.isnan(x).any(1)])
