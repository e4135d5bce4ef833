"""The records of many files in one file: how it is written, joined and mapped into memory.

In a file of records all of them lie one after the other in one array for each column, ``NAME``, and ``NAME.offsets``
``(records + 1,)`` says where each begins. The format is safetensors: loading never runs code, any program can read it,
and the system brings in only the pieces that are asked for. The header holds a SHA-256 of the records, which is the
same wherever their files lay and however many processes read them. :mod:`fm_science.prepared` says what it is for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np

from fm_science import __version__
from fm_science.errors import UserError
from fm_science.files import Dropped
from fm_science.storage import atomic

KIND, FORMAT = "fm-science prepared", 1
DROPPED = "dropped"  #: the array of what was left out, as JSON; no column may be called so
OFFSETS = ".offsets"
BLANK = "0" * 64  #: stands in the header until the content is known
CHUNK = 4096  #: records whose texts are looked at together
LARGEST = 100_000_000  #: bytes of a header, by the definition of safetensors
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1",
    "BOOL": "|b1",
}  # fmt: skip
Record = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Column:
    """One array of a record: ``(L, *shape)`` of a type such as ``float32``, where L may differ between records."""

    dtype: str
    shape: tuple[int, ...] = ()


TEXT = Column("uint8")  #: a text as UTF-8


def text(value: str) -> np.ndarray:
    """A text as an array ``(bytes,)`` for a column of texts."""
    return np.frombuffer(value.encode(), np.uint8)


def is_prepared(file: Path) -> bool:
    """Whether this is a prepared file, of any domain and version."""
    return _header(file) is not None


def _header(file: Path) -> tuple[dict[str, Any], int] | None:
    """The header of a prepared file and where its arrays begin; ``None`` for any other file."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            head = stream.read(length) if 0 < length <= LARGEST else b""
        found = json.loads(head) if head[:1] == b"{" else {}
    except (OSError, ValueError):
        return None
    about = found.get("__metadata__") if isinstance(found, dict) else None
    return (found, 8 + length) if isinstance(about, dict) and about.get("format") == KIND else None


class Prepared:
    """A prepared file, mapped into memory; it may be sent to another process, which maps it again.

    Args:
        file: what :func:`write_records` or :func:`join` wrote.

    Attributes:
        about: domain, layout, version, options of reading, and how many files there were.
        digest: the SHA-256 of the records.

    Raises:
        UserError: where it is no prepared file, of a newer format, or cut short.
    """

    def __init__(self, file: Path) -> None:
        found = _header(file)
        if found is None:
            raise UserError(f"{file} is no prepared file: write one with fm-science prepare")
        self.file = file
        try:
            self._open(*found)
        except UserError:
            raise
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{file} is damaged: its header cannot be understood. Prepare it again") from error

    def _open(self, head: dict[str, Any], begin: int) -> None:
        """Map the arrays of which the header tells."""
        kept, file = head.pop("__metadata__"), self.file
        self.digest = str(kept["sha256"])
        self.about: dict[str, Any] = json.loads(kept["about"])
        if self.about["format"] > FORMAT:
            raise UserError(f"{file} was prepared by a newer version ({self.about['version']}): update fm-science, or "
                            "prepare it again")  # fmt: skip
        end = begin + max(entry["data_offsets"][1] for entry in head.values())
        if file.stat().st_size != end:
            raise UserError(f"{file} is cut short: it has {file.stat().st_size} of {end} bytes. Prepare it again")
        whole = np.memmap(file, mode="r")
        self._arrays = {name: _view(whole, begin, entry) for name, entry in head.items()}
        self.columns = {n: Column(a.dtype.name, a.shape[1:]) for n, a in self._arrays.items() if n + OFFSETS in head}
        if any(len(self.offsets(name)) != len(self) + 1 for name in self.columns):
            raise ValueError("columns of other lengths")

    def __reduce__(self) -> tuple[type[Prepared], tuple[Path]]:
        return Prepared, (self.file,)

    def __len__(self) -> int:
        return int(self.about["records"])

    def flat(self, name: str) -> np.ndarray:
        """A column of all records, one after the other; a map of the file, read-only."""
        return self._arrays[name]

    def offsets(self, name: str) -> np.ndarray:
        """``(records + 1,)`` int64: where each record of a column begins, and the last one ends."""
        return self._arrays[name + OFFSETS]

    def lengths(self, name: str) -> np.ndarray:
        """``(records,)`` int64: the length of each record of a column."""
        return np.diff(self.offsets(name))

    def get(self, name: str, index: int) -> np.ndarray:
        """A column of one record, as an array of its own."""
        begin, end = self.offsets(name)[index : index + 2]
        return np.array(self._arrays[name][begin:end])

    def text(self, name: str, index: int) -> str:
        """A text of one record."""
        return self.get(name, index).tobytes().decode()

    def texts(self, name: str) -> list[str]:
        """A text of every record."""
        whole, ends = self.flat(name).tobytes(), self.offsets(name).tolist()
        return [whole[a:b].decode() for a, b in pairwise(ends)]

    def coded(self, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """A text of every record as its number ``(records,)`` int64 among the different ones, and these, in the order
        in which they first occur: little memory where few differ."""
        kinds: dict[bytes, int] = {}
        codes, flat = np.empty(len(self), np.int64), self.flat(name)
        for start in range(0, len(self), CHUNK):
            ends = self.offsets(name)[start : start + CHUNK + 1].tolist()
            piece, first = flat[ends[0] : ends[-1]].tobytes(), ends[0]
            for i, (a, b) in enumerate(pairwise(ends), start):
                codes[i] = kinds.setdefault(piece[a - first : b - first], len(kinds))
        return codes, tuple(word.decode() for word in kinds)

    @cached_property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was left out when the files were read."""
        return tuple(Dropped(*line) for line in json.loads(self._arrays[DROPPED].tobytes() or b"[]"))

    def whole(self) -> bool:
        """Whether the records are what was written, by their SHA-256. Reads all of the file."""
        found = hashlib.sha256()
        for name, array in self._arrays.items():
            if name != DROPPED:
                found.update(_title(name, array.dtype, array.shape))
                for start in range(0, len(array), 1 << 20):
                    found.update(array[start : start + (1 << 20)].tobytes())
        return found.hexdigest() == self.digest


class Texts(Sequence[str]):
    """A text of some records of a prepared file, each read when it is asked for.

    Args:
        prepared: the file.
        name: of the column.
        chosen: ``(n,)`` the numbers of the records.
    """

    def __init__(self, prepared: Prepared, name: str, chosen: np.ndarray) -> None:
        self.prepared, self.name, self.chosen = prepared, name, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> str | Texts:
        if isinstance(index, slice):
            return Texts(self.prepared, self.name, self.chosen[index])
        return self.prepared.text(self.name, int(self.chosen[index]))


def _view(whole: np.ndarray, begin: int, entry: Mapping[str, Any]) -> np.ndarray:
    first, last = (begin + place for place in entry["data_offsets"])
    return whole[first:last].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])


@dataclass(frozen=True)
class _Array:
    """An array that is to be written, piece by piece."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    pieces: Iterable[np.ndarray]


def write_records(
    records: Sequence[Record], dropped: Sequence[Dropped], columns: Mapping[str, Column], file: Path,
    about: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write records as one prepared file, in one move. Raises ValueError where one does not fit the columns."""
    arrays = []
    for name, column in columns.items():
        values = [np.asarray(record[name]) for record in records]
        for value in values:
            if value.dtype.name != column.dtype or value.shape[1:] != column.shape:
                raise ValueError(f"{name} is {value.dtype} {value.shape}, and not {column}")
        ends = np.cumsum([0, *map(len, values)], dtype=np.int64)
        arrays.append(_Array(name, np.dtype(column.dtype), (int(ends[-1]), *column.shape), values))
        arrays.append(_Array(name + OFFSETS, ends.dtype, ends.shape, [ends]))
    _write(arrays, dropped, {**(about or {}), "records": len(records)}, file)


def join(parts: Sequence[Path], columns: Mapping[str, Column], file: Path, about: Mapping[str, Any]) -> None:
    """Write the records of several prepared files, one after the other, as one, in one move and in little memory."""
    sizes = {name: [int(Prepared(part).offsets(name)[-1]) for part in parts] for name in columns}
    count = sum(len(Prepared(part)) for part in parts)
    arrays = []
    for name, column in columns.items():
        flat = (sum(sizes[name]), *column.shape)
        arrays.append(_Array(name, np.dtype(column.dtype), flat, _pieces(parts, name)))
        arrays.append(_Array(name + OFFSETS, np.dtype(np.int64), (count + 1,), _shifted(parts, name)))
    dropped = [line for part in parts for line in Prepared(part).dropped]
    _write(arrays, dropped, {**about, "records": count}, file)


def _pieces(parts: Sequence[Path], name: str) -> Iterator[np.ndarray]:
    return (Prepared(part).flat(name) for part in parts)


def _shifted(parts: Sequence[Path], name: str) -> Iterator[np.ndarray]:
    """The offsets of the records of all parts, piece by piece."""
    end = 0
    yield np.zeros(1, np.int64)
    for part in parts:
        offsets = Prepared(part).offsets(name)
        yield offsets[1:] + end
        end += int(offsets[-1])


def _write(arrays: Sequence[_Array], dropped: Sequence[Dropped], about: Mapping[str, Any], file: Path) -> None:
    """Write arrays, those of the largest numbers first, so that all of them are aligned."""
    said = np.frombuffer(json.dumps([astuple(line) for line in dropped]).encode(), np.uint8)
    ordered = sorted(arrays, key=lambda array: (-array.dtype.itemsize, array.name))
    ordered.append(_Array(DROPPED, said.dtype, said.shape, [said]))
    head = _head(ordered, {"format": FORMAT, "version": __version__, "left_out": len(dropped), **about})
    found = hashlib.sha256()
    with atomic(file) as part, part.open("wb") as stream:
        stream.write(head)
        for array in ordered:
            if array.name != DROPPED:
                found.update(_title(array.name, array.dtype, array.shape))
            for piece in array.pieces:
                content = piece.astype(array.dtype, copy=False).tobytes()
                stream.write(content)
                if array.name != DROPPED:
                    found.update(content)
        stream.seek(head.index(BLANK.encode()))
        stream.write(found.hexdigest().encode())


def _title(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    return f"{name} {dtype.str} {tuple(map(int, shape))}".encode()


def _head(arrays: Sequence[_Array], about: Mapping[str, Any]) -> bytes:
    """The beginning of a safetensors file of these arrays."""
    kinds = {np.dtype(code).name: name for name, code in DTYPES.items()}
    head: dict[str, Any] = {"__metadata__": {"format": KIND, "sha256": BLANK, "about": json.dumps(about)}}
    end = 0
    for array in arrays:
        begin, end = end, end + int(np.prod(array.shape, dtype=np.int64)) * array.dtype.itemsize
        head[array.name] = {"dtype": kinds[array.dtype.name], "shape": array.shape, "data_offsets": [begin, end]}
    words = json.dumps(head, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    return len(words).to_bytes(8, "little") + words
