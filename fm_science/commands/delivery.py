"""Writing samples into a folder: all of them or none.

They are written into a folder ``.part`` inside it, chunk by chunk, with a line for each complete chunk. When all are
there, they replace the samples of an earlier request. If the work is interrupted before, the old samples are still
there, and the same request continues after the last complete chunk.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fm_science.errors import UserError
from fm_science.samples import RECORD, inside, read_record, write_record
from fm_science.storage import write_text

PART = ".part"
REQUEST, CHUNKS = "request.json", "chunks.jsonl"
KINDS = ("files", "trajectories")


class Delivery:
    """The samples of one request.

    Args:
        out: the folder for them.
        request: everything that they depend on, as plain values.

    Attributes:
        folder: where to write them until all are complete.
        made: how many of them exist already, from an earlier try.

    Raises:
        UserError: when ``out`` or a file inside is a link to another place.
    """

    def __init__(self, out: Path, request: Mapping[str, Any]) -> None:
        self.out, self.folder = out, out / PART
        for place in (self.folder, out / RECORD):
            if place.is_symlink():
                raise UserError(f"{place} is a link, which is not followed: remove it, or choose another out=DIR")
        text = json.dumps(request, sort_keys=True, default=str)
        kept = self.folder / REQUEST
        self.made = 0
        if kept.is_file() and kept.read_text(encoding="utf-8") == text:
            self.made = self._recover()
        if not self.made:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            kept.write_text(text, encoding="utf-8")

    def keep(self, n: int, files: Iterable[Path], trajectories: Iterable[Path] = ()) -> None:
        """Record that ``n`` more samples are complete, and in which files they are."""
        sizes = {}
        for kind, written in zip(KINDS, (files, trajectories), strict=True):
            sizes[kind] = {str(file.relative_to(self.folder)): file.stat().st_size for file in written}
        with (self.folder / CHUNKS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"n": n, **sizes}) + "\n")
        self.made += n

    def finish(self, how: Mapping[str, Any]) -> None:
        """Remove what an earlier request wrote, and nothing else; replace it by the samples, with a record of ``how``
        they were drawn."""
        forget(self.out)
        write_record(self.out / RECORD, how, {kind: self._names(kind) for kind in KINDS})
        for kind in KINDS:
            for name in self._names(kind):
                place = inside(self.out, name)
                place.parent.mkdir(parents=True, exist_ok=True)
                if (self.folder / name).exists():
                    os.replace(self.folder / name, place)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _chunks(self) -> Iterator[dict[str, Any]]:
        """The complete chunks. A truncated line does not count."""
        file = self.folder / CHUNKS
        if file.is_file():
            with file.open(encoding="utf-8") as lines:
                yield from (json.loads(line) for line in lines if line.endswith("\n"))

    def _names(self, kind: str) -> Iterator[str]:
        """The names of all files of a kind, each once."""
        seen: set[str] = set()
        for chunk in self._chunks():
            for name in chunk[kind]:
                if name not in seen:
                    seen.add(name)
                    yield name

    def _recover(self) -> int:
        """How many complete samples an earlier try has left; files of its last, incomplete chunk are removed."""
        chunks = list(self._chunks())
        sizes = {name: size for chunk in chunks for kind in KINDS for name, size in chunk[kind].items()}
        if any(
            not (self.folder / name).is_file() or (self.folder / name).stat().st_size < n for name, n in sizes.items()
        ):
            return 0
        for file in [file for file in self.folder.rglob("*") if file.is_file()]:
            name = str(file.relative_to(self.folder))
            if name in sizes:
                os.truncate(file, sizes[name])  # files that grow with each chunk
            elif name not in (REQUEST, CHUNKS):
                file.unlink()
        lines = "".join(json.dumps(chunk) + "\n" for chunk in chunks)
        write_text(lines, self.folder / CHUNKS)
        return sum(chunk["n"] for chunk in chunks)


def forget(out: Path) -> None:
    """Remove what an earlier request wrote, and nothing else. Raises UserError if its record names other places."""
    if (out / RECORD).is_file():
        kept = read_record(out / RECORD)
        for file in [inside(out, name) for kind in KINDS for name in kept[kind]]:
            file.unlink(missing_ok=True)
        (out / RECORD).unlink()
