"""Folders of samples, and which files of a folder are read.

``sampling.yaml`` next to samples records how they were drawn. Subfolders have other things: samples of the validations
of a run, and trajectories from noise to sample.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from fm_science.errors import UserError

RECORD = "sampling.yaml"  #: how the samples next to it were drawn, and which files they are


def files_in(folder: Path) -> list[Path]:
    """The files of a folder and of its subfolders, in order; of a folder of samples only its own files. Names that
    begin with a dot are skipped: they are samples that are still being written."""
    names = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    files = sorted(folder / name for name in names if not any(part.startswith(".") for part in name.parts))
    drawn = {file.parent for file in files if file.name == RECORD}
    return [file for file in files if drawn.isdisjoint(file.parent.parents)]


def inside(folder: Path, name: str) -> Path:
    """The file of that name in a folder. Raises UserError if the name, or a link on its path, leads out of it."""
    parts = PurePath(name).parts
    place = folder / name
    if not parts or PurePath(name).is_absolute() or ".." in parts:
        raise UserError(f"{folder} names {name!r}, which is not inside it: nothing outside is touched")
    ways = [folder.joinpath(*parts[: k + 1]) for k in range(len(parts) - 1)]
    if any(way.is_symlink() for way in ways):
        raise UserError(f"{folder} names {name!r}, which leads elsewhere by a link: links are not followed")
    return place


def write_record(file: Path, how: Mapping[str, Any], files: Mapping[str, Iterable[str]]) -> None:
    """Record how samples were drawn and which files they are, atomically. Texts are written as JSON, which is YAML
    as well."""
    part = file.with_name(f".{file.name}.part")
    with part.open("w", encoding="utf-8") as stream:
        for key, value in how.items():
            stream.write(f"{key}: {json.dumps(value, default=str)}\n")
        for key, names in files.items():
            stream.write(f"{key}:")
            lines = [f"\n- {json.dumps(name)}" for name in names]
            stream.write("".join(lines) or " []")
            stream.write("\n")
    os.replace(part, file)


def read_record(file: Path) -> dict[str, Any]:
    """How the samples in a folder were drawn, and which ``files`` and ``trajectories`` they are. Raises UserError if
    the record cannot be read, or names files that are not in its folder."""
    import yaml

    try:
        kept = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {file}: {' '.join(str(error).split())}") from error
    if not isinstance(kept, dict) or not isinstance(kept.get("files"), list):
        raise UserError(f"cannot read {file}: it is no record of samples")
    kept.setdefault("trajectories", [])
    for kind in ("files", "trajectories"):
        for name in kept[kind]:
            inside(file.parent, str(name))
    return kept
