"""Files that are written atomically, and trees of plain values and tensors stored in one file.

A tree is a nested mapping of JSON values (numbers, texts, lists, null) and of tensors. It is stored as safetensors:
loading never runs code, and a checksum over all of it detects a damaged file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fm_science.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Tree = Mapping[str, Any]
FORMAT = "fm-science tree 1"
PART = ".*.part"  #: names of files that are being written
TENSOR = "$tensor"  #: the key that stands for a tensor in the JSON of a tree


@contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """A new file next to ``file`` to write into, which replaces it atomically once it is on the disk. If anything fails
    before, the old file is unchanged, and the new one is removed."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield part
        sync(part)
        os.replace(part, file)
        sync(file.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A new folder next to ``folder`` to write into, which replaces it once all is written; the previous content is
    then removed. If anything fails before, the old folder is unchanged."""
    part = _beside(folder)
    try:
        yield part
        for file in part.rglob("*"):
            sync(file)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def atomic_files(folder: Path) -> Iterator[Path]:
    """A new folder inside ``folder`` to write into, whose files are moved to ``folder`` once all are written, each
    atomically. If anything fails before, nothing in ``folder`` has changed."""
    part = _beside(folder / "new")
    try:
        yield part
        for file in [file for file in part.rglob("*") if file.is_file()]:
            sync(file)
            place = folder / file.relative_to(part)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
        sync(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _beside(place: Path) -> Path:
    """A new and empty folder for what will become ``place``."""
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def sweep(folder: Path, *patterns: str) -> None:
    """Remove files that a killed process left partly written; only for the process that has the lock of the folder."""
    for part in [part for pattern in patterns for part in folder.glob(pattern)]:
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def write_text(text: str, file: Path) -> None:
    """Write a text file atomically."""
    with atomic(file) as part:
        part.write_text(text, encoding="utf-8")


def load_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file; references such as ``${oc.env:HOME}`` remain texts. Raises UserError if it cannot be
    read as one, and for aliases (``*name``), by which a small file may expand without limit."""
    import yaml
    from omegaconf import OmegaConf

    try:
        with file.open(encoding="utf-8") as stream:
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(stream)):
                raise ValueError("it holds aliases (*name): expected plain values")
        tree: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except Exception as error:
        raise UserError(f"cannot read {file}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UserError(f"cannot read {file}: expected keys and values")
    return tree


def save_yaml(tree: Tree, file: Path) -> None:
    """Write a mapping of plain values as YAML, atomically."""
    from omegaconf import OmegaConf

    write_text(OmegaConf.to_yaml(OmegaConf.create(dict(tree))), file)


def writable(folder: Path) -> None:
    """Create a folder if needed. Raises UserError if nothing can be written there."""
    trial = folder / ".trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror or error}") from error


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk, if the system can do so."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # folders cannot be opened everywhere
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def save_tree(tree: Tree, file: Path) -> None:
    """Write a tree as one file, atomically. Raises TypeError for a value that is neither JSON nor a tensor."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    text = json.dumps(_plain(tree, "", tensors), sort_keys=True)
    with atomic(file) as part:
        save_file(tensors, part, {"format": FORMAT, "tree": text, "sha256": _digest(text, tensors)})


def load_tree(file: Path, what: str = "file") -> dict[str, Any]:
    """The tree that :func:`save_tree` wrote. Raises UserError, which calls the file ``what``, if it is not one, or is
    not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as kept:
            about = kept.metadata() or {}
            if about.get("format") != FORMAT:
                kind = about.get("format", "another kind of safetensors")
                raise UserError(f"{file} is no {what}: expected {FORMAT!r}, found {kind!r}")
            tensors = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read the {what} {file}: it is truncated, or of another kind ({error})") from error
    if _digest(about["tree"], tensors) != about.get("sha256"):
        raise UserError(f"the {what} {file} is damaged: its checksum does not match. Get another copy")
    return _tree(json.loads(about["tree"]), tensors)


def _plain(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A tree as JSON; its tensors are moved to ``tensors`` under their dotted names."""
    import torch

    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {TENSOR: name}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{name}.{key}".lstrip("."), tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{name}.{k}", tensors) for k, item in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}: a tree holds numbers, texts, lists, mappings and tensors")


def _tree(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`_plain`."""
    if isinstance(value, list):
        return [_tree(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    return tensors[value[TENSOR]] if TENSOR in value else {key: _tree(item, tensors) for key, item in value.items()}


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the JSON and of every tensor with its name, kind and shape."""
    import torch

    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
