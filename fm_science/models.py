"""Models: what was trained, in one file or under a name, usable in place of a run folder.

A model file holds options, statistics, weights and a card (what it was trained on, for how long, and its measured
quality). It is safetensors with a checksum: loading never runs code. Domains ship models in the folder ``models`` next
to their code, and users store theirs in their own folder; nothing is fetched unasked.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fm_science import __version__
from fm_science.errors import UserError, nearest
from fm_science.plugins import domains
from fm_science.runs import Run, is_run
from fm_science.storage import load_tree, save_tree, writable
from fm_science.trained import Trained
from fm_science.trust import source as trust_source

if TYPE_CHECKING:
    from torch import Tensor

    from fm_science.domain import Domain
    from fm_science.flow import Flow

SUFFIX = ".safetensors"
PLACE = "FM_SCIENCE_MODELS"  #: the environment variable that names the user's folder of models
KIND = "model"
NOT_OPTIONS = ("trainer", "optimizer", "run", "resume", "command", "version")  #: keys that models leave out


class Model(Trained):
    """A model file.

    Args:
        file: the file. Raises UserError if it is not a model, is not whole, or is of a newer version.
    """

    def __init__(self, file: Path) -> None:
        kept = load_tree(file, KIND)
        if kept.get("kind") != KIND:
            raise UserError(f"{file} is no model: expected a file that fm-science export wrote")
        for part in ("card", "config", "weights", "statistics"):
            if not isinstance(kept.get(part), Mapping):
                raise UserError(f"{file} is no whole model: its {part} is {kept.get(part)!r:.40}, where a table of "
                                "names and values was expected")  # fmt: skip
        if not isinstance(kept["config"].get("domain"), str):
            raise UserError(f"{file} is no whole model: its config names no domain")
        self.file, self.card = file, dict(kept["card"])
        self._weights_by_name: Mapping[str, Tensor] = _dotted(kept["weights"])
        super().__init__(file.stem, kept["config"], kept["statistics"])

    @property
    def fingerprint(self) -> list[int]:
        about = self.file.stat()
        return [about.st_size, about.st_mtime_ns]

    def weights(self) -> Mapping[str, Tensor]:
        return {name: w.float() if w.is_floating_point() else w for name, w in self._weights_by_name.items()}

    @property
    def parameters(self) -> int:
        """The number of learned parameters."""
        return sum(weight.numel() for weight in self._weights_by_name.values())


def _dotted(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    return {str(name): value for name, value in tree.items()}


def export(source: Trained, file: Path, half: bool = True, card: Mapping[str, Any] | None = None) -> Model:
    """Write what was trained as one file.

    Args:
        source: a run, or another model.
        file: the new file, named ``NAME.safetensors``; it is written in one move.
        half: whether weights are stored in half precision, which takes half the space.
        card: information about it: plain values by name, such as ``data``, ``licence``, ``trained`` and ``table``.

    Raises:
        UserError: when the source has no weights, or the file has another extension.
    """
    import torch

    if file.suffix != SUFFIX:
        raise UserError(f"out={file}: expected a name that ends with {SUFFIX}")
    weights = {k: w.half() if half and w.dtype == torch.float32 else w for k, w in source.weights().items()}
    statistics = source.statistics if source.statistics is not None else source.domain().statistics
    config = {key: value for key, value in source.config.items() if key not in NOT_OPTIONS}
    writable(file.parent)
    save_tree(
        {
            "kind": KIND, "config": {**config, "version": __version__}, "statistics": statistics, "weights": weights,
            "card": dict(card or {}),
        },
        file,
    )  # fmt: skip
    return Model(file)


def user_folder() -> Path:
    """Where models of the user are stored: ``FM_SCIENCE_MODELS``, else a folder of the platform."""
    import platformdirs

    return Path(os.environ.get(PLACE) or Path(platformdirs.user_data_dir("fm-science"), "models"))


def models() -> dict[str, Path]:
    """The files of all models by name; the user's take precedence over shipped ones, built-in domains over plugins."""
    folders = [plugin.folder for plugin in sorted(domains().values(), key=lambda plugin: plugin.builtin)]
    places = [*(folder / "models" for folder in folders if folder is not None), user_folder()]
    return {file.stem: file for place in places if place.is_dir() for file in sorted(place.glob(f"*{SUFFIX}"))}


def add(file: Path) -> Model:
    """Keep a copy of a model file in the user's folder, under the name of the file. Raises UserError if it is not a
    model, or one of that name exists."""
    model = Model(file)
    folder = user_folder()
    writable(folder)
    place = folder / file.name
    if place.exists():
        raise UserError(f"{place} exists already: remove it first, or rename {file}")
    shutil.copyfile(file, place)
    return model


def find_trained(source: str | os.PathLike[str]) -> Trained:
    """What was trained: a run folder, a model file, or the name of a model, in this order. Raises UserError if there is
    none of that name."""
    path = Path(source)
    if is_run(path):
        return Run.open(path)
    if path.is_file():
        return Model(path)
    known = models()
    if str(source) in known:
        return Model(known[str(source)])
    if path.exists() or os.sep in str(source):
        return Run.open(path)  # which says what is missing
    hint = nearest(str(source), known) if known else "no model is installed"
    raise UserError(f"no run folder, model file or model {str(source)!r}; {hint}")


def load(
    source: str | os.PathLike[str], domain: Domain | type[Domain] | None = None, trust: bool = False
) -> Flow:  # fmt: skip
    """The flow of what was trained, with its averaged weights and its domain; no data are read.

    Args:
        source: a run folder, a model file, or the name of a model.
        domain: the domain, or its class, if that is not installed as a plugin; its own statistics are not used.
        trust: whether code that a run names, such as the user's own energy, may be imported.

    Raises:
        UserError: when there is none of that name, it cannot be used here, or has no weights yet.
    """
    found = find_trained(source)
    if isinstance(domain, type):
        domain = domain(**{name: found.config[name] for name in domain.groups() if name in found.config})
    with trust_source(None if trust else found.label):
        return found.flow(found.adopt(domain) if domain is not None else None)
