"""Files of users: opened safely, and those that cannot be used are listed with the reason.

Any file may be empty, truncated, compressed so strongly that it fills the memory, or something other than its name
says. So compressed files are unpacked up to a limit, arrays are checked by their headers before they are loaded, and
nothing stored in a file is ever executed. One unreadable file in a folder does not stop the reading: it becomes a line
of ``dropped.csv``. For a file that was named itself, an error of one sentence is raised.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import math
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from fm_science.errors import UserError

log = logging.getLogger(__name__)
T = TypeVar("T")

GZIP = b"\x1f\x8b"
SUSPICIOUS = 1 << 28  #: bytes; files that unpack to more than this,
TIGHTEST = 200  #: and to more than this many times their compressed size, are refused
COLUMNS = ("file", "part", "reason")
UNREADABLE = (ValueError, KeyError, IndexError, TypeError, OSError, EOFError, RuntimeError, OverflowError, MemoryError,
              zlib.error, zipfile.BadZipFile)  # fmt: skip
#: what parsers raise for broken files; MemoryError and OverflowError come from absurd sizes in headers


@dataclass(frozen=True)
class Dropped:
    """A file, or a part of one (a chain, a molecule, a row), that was not used, and why. part: empty for a file."""

    file: str
    part: str
    reason: str


def write_dropped(dropped: Iterable[Dropped], path: str | os.PathLike[str]) -> Path:
    """One line ``file,part,reason`` for everything that was left out, as CSV."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows([d.file, d.part, d.reason] for d in dropped)
    return path


def read_dropped(path: Path) -> list[Dropped]:
    """What :func:`write_dropped` wrote. Raises KeyError if it was something else."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [Dropped(*(row[column] for column in COLUMNS)) for row in csv.DictReader(stream)]


def read_each(
    files: Sequence[Path], read: Callable[[Path], list[T]], named: Iterable[Path] = (),
    dropped: list[Dropped] | None = None,
) -> list[T]:  # fmt: skip
    """What ``read`` finds in each file, in order. A file that it cannot read is listed in ``dropped``, unless it is one
    of those that the user ``named``.

    Raises:
        UserError: for a file that was named and cannot be read, and when no file of several can be read.
    """
    given, found, bad = set(named), [], []
    for file in files:
        try:
            found += read(file)
        except UserError as error:
            if file in given:
                raise
            bad.append((Dropped(str(file), "", reason_of(error, file)), error))
    if bad and not found:
        more = f" (and {len(bad) - 1} more files that cannot be read)" if len(bad) > 1 else ""
        raise UserError(f"{bad[0][1]}{more}") from bad[0][1]
    if bad:
        log.warning("%d of %d files cannot be read and are left out; first: %s", len(bad), len(files), bad[0][1])
    if dropped is not None:
        dropped += [line for line, _ in bad]
    return found


def reason_of(error: BaseException, file: Path | None = None) -> str:
    """The message of an error, in one line, without the name of the file at its beginning."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.removeprefix(str(file)).lstrip(" :") if file is not None else text


def read_bytes(file: Path) -> bytes:
    """The bytes of a file, unpacked if they are gzipped, independent of the name of the file.

    Raises:
        ValueError: if they are truncated, or unpack to an implausible size.
        OSError: where the file cannot be opened.
    """
    raw = file.read_bytes()
    if not raw.startswith(GZIP):
        return raw
    try:
        with gzip.open(io.BytesIO(raw)) as stream:
            data = stream.read(max(SUSPICIOUS, TIGHTEST * len(raw)) + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"the compressed file is cut short or damaged ({error})") from error
    refuse_bomb(len(data), len(raw))
    return data


def read_text(file: Path) -> str:
    """The text of a file, plain or gzipped: UTF-8 or UTF-16 with or without byte order mark, else Latin-1; line ends
    are ``\\n``. Raises what :func:`read_bytes` raises, and ValueError if it is not text."""
    data = read_bytes(file)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    if "\0" in text[:4096]:
        raise ValueError("the file is binary, not text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def refuse_bomb(unpacked: int, packed: int) -> None:
    """Raises ValueError if data of ``packed`` bytes unpack to an implausible size, or to more than the memory."""
    if unpacked > SUSPICIOUS and unpacked > TIGHTEST * max(1, packed):
        raise ValueError(
            f"{packed / 1e6:.1f} MB unpack to {unpacked / 1e9:.1f} GB or more: no measured data pack so tightly, so it "
            "is not loaded; save it uncompressed if it is real"
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    if unpacked > memory / 2:
        raise ValueError(
            f"it holds {unpacked / 1e9:.1f} GB, more than half of the {memory / 1e9:.0f} GB of memory: split it"
        )


@dataclass(frozen=True)
class Header:
    """The content of the header of a stored array. member: its name in the archive, empty for a .npy file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    member: str = ""

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def numeric(self) -> bool:
        """Whether it has integers or real numbers."""
        return self.dtype.kind in "iuf"


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of a .npz file, or the one of a .npy file under the name ``""``, each loaded when it is requested and
    after its header was checked.

    Attributes:
        headers: shape and type of each array, read without loading any.

    Raises:
        ValueError: if the file is empty, truncated or of another kind; and, when an array is requested, if it has
            Python objects, or an implausible size.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        start = file.open("rb").read(6)
        if not start:
            raise ValueError("the file is empty")
        self.single = start.startswith(b"\x93NUMPY")
        if not self.single and not start.startswith(b"PK"):
            raise ValueError("it is no .npz or .npy file, whatever its name says")
        self.headers: dict[str, Header] = dict(self._headers())

    def _headers(self) -> Iterator[tuple[str, Header]]:
        if self.single:
            with self.file.open("rb") as stream:
                yield "", self._sound(stream, "", self.file.stat().st_size, self.file.stat().st_size)
            return
        try:
            with zipfile.ZipFile(self.file) as archive:
                for info in archive.infolist():
                    if info.filename.endswith(".npy"):
                        with archive.open(info) as stream:
                            name = info.filename[: -len(".npy")]
                            yield name, self._sound(stream, info.filename, info.file_size, info.compress_size)
        except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError) as error:
            raise ValueError(f"the archive is damaged or cut short ({error})") from error

    def _sound(self, stream: IO[bytes], member: str, size: int, packed: int) -> Header:
        """The header at the beginning of a stored array, whose size must agree with the header."""
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape, _, dtype = read(stream)
        bytes_ = math.prod(shape) * dtype.itemsize
        if dtype.kind != "O":
            if bytes_ > size:
                raise ValueError(f"the array {member or self.file.name} is cut short: {size} of {bytes_} bytes")
            refuse_bomb(bytes_, packed)
        return Header(shape, dtype, member)

    def __len__(self) -> int:
        return len(self.headers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __getitem__(self, name: str) -> np.ndarray:
        if self.headers[name].dtype.kind == "O":
            raise ValueError(f"{name or 'the array'} holds Python objects, which are never loaded; save it as numbers")
        loaded = np.load(self.file, allow_pickle=False)
        if self.single:
            return loaded
        with loaded:
            return loaded[name]

    def numbers(self, name: str) -> np.ndarray:
        """An array of integers or real numbers. Raises ValueError for other types, as :meth:`refuse` does."""
        self.refuse(name)
        return self[name]

    def refuse(self, name: str) -> None:
        """Raises ValueError unless an array has integers or real numbers."""
        kind = self.headers[name].dtype.kind
        what = repr(name) if name else "the array"
        if kind == "c":
            raise ValueError(f"{what} is complex; save its real and imaginary parts as two channels")
        if kind == "b":
            raise ValueError(f"{what} holds true and false, not numbers; save it as 0 and 1 if they are meant so")
        if kind in "SU":
            raise ValueError(f"{what} holds text, not numbers")
        if kind == "O":
            raise ValueError(f"{what} holds Python objects, which are never loaded; save it as numbers")
        if kind not in "iuf":
            raise ValueError(f"{what} holds {self.headers[name].dtype}, not numbers")
