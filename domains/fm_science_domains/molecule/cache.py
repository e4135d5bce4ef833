"""A cache of prepared data: what took minutes once is read in a second the next time.

The folder is the option ``data.cache``, else the environment variable ``FM_SCIENCE_CACHE``, else ``fm-science`` in the
user's cache folder. A file's name has a digest of everything that its content depends on, so outdated files are never
read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fm_science.errors import UserError
from fm_science.files import Dropped, read_dropped, write_dropped

from .molecule import Molecule
from .pack import FORMAT, Pack

log = logging.getLogger(__name__)


Prepared = tuple[Pack, list[Dropped]]
Parsed = tuple[Molecule, str] | Dropped  #: a molecule and its canonical SMILES, or why it is left out
CHUNK = 4096  # molecules collected before they are packed


def folder(option: str | None = None) -> Path:
    """The folder of prepared data."""
    if option:
        return Path(option).expanduser()
    if os.environ.get("FM_SCIENCE_CACHE"):
        return Path(os.environ["FM_SCIENCE_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fm-science"


def digest(*words: object) -> str:
    """A short name for everything that prepared data depend on."""
    return hashlib.sha256(repr((FORMAT, *words)).encode()).hexdigest()[:16]


def cached(place: Path, name: str, make: Callable[[], Prepared]) -> Prepared:
    """The result of ``make``, from the file ``place/name.npz`` if it exists, else computed and stored.

    Raises UserError when the folder cannot be written.
    """
    file = place / f"{name}.npz"
    listed = file.with_suffix(".dropped.csv")
    if file.is_file() and listed.is_file():
        try:
            return Pack.load(file), read_dropped(listed)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            log.warning("%s cannot be read (%s): made again", file, error)
    try:
        place.mkdir(parents=True, exist_ok=True)
        pack, dropped = make()
        write_dropped(dropped, listed)
        pack.save(file)
    except OSError as error:
        raise UserError(f"cannot keep prepared data in {place} ({error}); name another, data.cache=DIR") from error
    log.info("kept in %s (%.0f MB)", file, file.stat().st_size / 1e6)
    return pack, dropped


def gather(found: Iterable[Parsed], part: Callable[[int, str], int], source: str) -> Prepared:
    """The molecules of ``source`` as a pack, each in the part ``part(number, smiles)``; in bounded memory.

    Raises UserError when nothing is usable.
    """
    packs: list[Pack] = []
    dropped: list[Dropped] = []
    chunk: list[tuple[Molecule, str, int]] = []
    for number, one in enumerate(found):
        if isinstance(one, Dropped):
            dropped.append(one)
            continue
        chunk.append((*one, part(number, one[1])))
        if len(chunk) == CHUNK:
            packs.append(Pack.of(*zip(*chunk, strict=True)))
            chunk = []
    packs += [Pack.of(*zip(*chunk, strict=True))] if chunk else []
    if not packs:
        raise UserError(f"no usable molecule in {source}: {summary(dropped) or 'there are none'}")
    return Pack.join(packs), dropped


def summary(dropped: Sequence[Dropped], most: int = 3) -> str:
    """The most common reasons with their numbers, in one line; empty when nothing was dropped."""
    counts: dict[str, int] = {}
    for one in dropped:
        counts[one.reason] = counts.get(one.reason, 0) + 1
    common = sorted(counts, key=lambda reason: -counts[reason])
    shown = [f"{counts[reason]} x {reason}" for reason in common[:most]]
    return "; ".join([*shown, *(["..."] if len(common) > most else [])])
