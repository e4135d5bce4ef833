"""The checkpoints of a run: which there are, how a new one is added, and how a broken one is detected.

``last.ckpt`` is the newest, ``previous.ckpt`` the one before, ``previous-2.ckpt`` the one before that. Each is a ZIP
archive with a checksum for every tensor, and all are verified before anything is read from it. If the newest is broken,
the one before is used.
"""

from __future__ import annotations

import os
import re
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from fm_science.errors import UserError
from fm_science.storage import sync

FOLDER, LAST, PREVIOUS = "checkpoints", "last.ckpt", "previous.ckpt"


class BrokenCheckpoint(UserError):
    """A checkpoint that is truncated, damaged or something else."""


def checkpoint_name(age: int) -> str:
    """The name of the newest checkpoint (0), of the one before (1), and so on."""
    return (LAST, PREVIOUS)[age] if age < 2 else f"previous-{age}.ckpt"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    ages = {LAST: 0, PREVIOUS: 1}
    found: dict[int, Path] = {}
    for file in folder.glob("*.ckpt"):
        numbered = re.fullmatch(r"previous-(\d+)\.ckpt", file.name)
        age = int(numbered[1]) if numbered else ages.get(file.name)
        if age is not None:
            found[age] = file
    return [found[age] for age in sorted(found)]


def read_checkpoint(file: Path, domain: str | None = None) -> dict[str, Any]:
    """The content of a checkpoint of a run. Loading never runs code.

    Args:
        file: the checkpoint.
        domain: the name of the domain that it must belong to.

    Raises:
        BrokenCheckpoint: when it is truncated, damaged or something else.
        UserError: when it is of another domain.
    """
    import torch

    try:
        with zipfile.ZipFile(file) as parts:
            damaged = parts.testzip()  # torch does not verify the checksums
        kept = None if damaged else torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BrokenCheckpoint(f"cannot read {file}: {error.strerror or error}") from error
    except Exception as error:  # any error of such bytes; torch would advise to load them as code
        raise BrokenCheckpoint(f"{file} is no whole checkpoint: it is truncated, empty or of another kind") from error
    if damaged:
        raise BrokenCheckpoint(f"{file} is damaged: the checksum of {damaged.partition('/')[2]} does not match")
    if not isinstance(kept, dict) or not isinstance(kept.get("state_dict"), dict):
        raise BrokenCheckpoint(f"{file} is no checkpoint of a run: it holds no weights by name")
    about = kept.get("fm_science") or {}
    if domain is not None and about.get("domain", domain) != domain:
        raise UserError(f"{file} is a checkpoint of domain {about['domain']!r}, and this run is of {domain!r}")
    return kept


def newest(folder: Path, domain: str | None = None) -> tuple[Path, dict[str, Any], str]:
    """The newest whole checkpoint in a folder, its content, and a warning if newer ones were skipped, else "".

    Raises:
        BrokenCheckpoint: that of the newest, when none is whole.
        UserError: when there is none, or it is of another domain.
    """
    files, causes = checkpoints(folder), []
    for file in files:
        try:
            kept = read_checkpoint(file, domain)
        except BrokenCheckpoint as error:
            causes.append(str(error))
            continue
        warning = f"{'; '.join(causes)}; going on from {file.name}, of step {kept['global_step']}" if causes else ""
        return file, kept, warning
    if not causes:
        raise UserError(f"there is no checkpoint in {folder}: train first, or choose another run")
    older = f"; nor is an older one whole ({', '.join(file.name for file in files[1:])})" if files[1:] else ""
    raise BrokenCheckpoint(f"{causes[0]}{older}")


def rotate(part: Path, folder: Path, keep: int) -> None:
    """Make ``part`` the last checkpoint of ``folder``, and the last one the previous, and so on; ``keep`` of them are
    kept. If this is interrupted at any point, no whole checkpoint is lost except the oldest."""
    sync(part)
    kept = [folder / checkpoint_name(age) for age in range(keep)]
    for file in checkpoints(folder):
        if file not in kept:
            file.unlink()
    for younger, older in reversed(list(pairwise(kept[1:]))):
        if younger.is_file():
            os.replace(younger, older)
    if keep > 1 and kept[0].is_file():
        _twice(kept[0], kept[1])
    os.replace(part, kept[0])
    sync(folder)


def _twice(file: Path, name: Path) -> None:
    """Give ``file`` a second name, replacing any file of that name."""
    spare = name.with_name(f"{name.name}.part")
    spare.unlink(missing_ok=True)
    try:
        os.link(file, spare)
    except OSError:  # a file system without links: for a moment the file exists only under the second name
        spare = file
    os.replace(spare, name)
    if spare != file:
        spare.unlink(missing_ok=True)  # it still exists if both were already the same file


def mend(file: Path) -> None:
    """Replace the newer checkpoints, which are broken, by a whole one, so that they do not displace a whole one."""
    for newer in checkpoints(file.parent):
        if newer == file:
            break
        if newer.name == LAST:
            _twice(file, newer)
        else:
            newer.unlink()
