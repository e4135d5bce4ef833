"""Molecules: atoms, bonds, charges and geometry from one flow, learned from QM9, drug-like molecules or the user's own.

A molecule of N atoms is a point of a product: centred positions in angstrom, a class for each atom's element and for
its charge, and a class for each pair of atoms, which is the bond between them (none, single, double, triple; aromatic
rings as one of their Kekulé structures). All parts flow together, so that graph and geometry are sampled together.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from fm_science.data import TrainingData, collate
from fm_science.domain import Domain, Statistics
from fm_science.errors import UserError
from fm_science.flow import Flow
from fm_science.metrics import Metric
from fm_science.objectives import FlowMatching
from fm_science.state import Context
from fm_science.symmetries import Permutations, Rotations, Symmetry

from . import conditioning, files, network, recipe
from . import metrics as measures
from . import report as pictures
from .collection import Library, Summary
from .data import load
from .meanings import MEANINGS
from .molecule import Molecule, without_hydrogens
from .network import Network
from .options import Data
from .recipe import Coupling, Objective, Path, Sample
from .stored import MoleculePreparation
from .vocabulary import Vocabulary


@dataclass(frozen=True)
class Options:
    """The options."""

    data: Data = Data()
    network: Network = Network()
    path: Path = Path()
    coupling: Coupling = Coupling()
    objective: Objective = Objective()
    sample: Sample = Sample()
    metrics: measures.Metrics = measures.Metrics()


class MoleculeDomain(Domain):
    """The domain of molecules.

    Raises:
        OptionError: for an unknown option or a value that does not fit.
        UserError: when there are no molecules to learn from, or a fragment cannot be used.
    """

    name = "molecule"
    metric_meanings = MEANINGS
    options: Options
    slow = frozenset({"quantum"})

    def load_data(self) -> TrainingData:
        o = self.options.data
        library = load(o, None if self.given is None else self.summary.vocabulary)
        known = Summary.of(library) if self.given is None else self.summary
        conditions = conditioning.names(self.options.objective.condition, known.properties, "objective.condition")
        conditioning.names("+".join(conditions), library.properties, "objective.condition")
        counts = self._counts(known)
        train, validation = (recipe.OneHot(d, counts, conditions) for d in (library.train, library.validation))
        return TrainingData(train, validation, o.batch, o.budget, o.workers, library, library.digest)

    def preparation(self) -> MoleculePreparation:
        return MoleculePreparation(vars(self.options.data))

    @property
    def library(self) -> Library:
        """All data that were read."""
        return self.data.source

    def fit_statistics(self, data: TrainingData) -> Statistics:
        """Vocabulary, standard deviation, sizes, properties and valences."""
        return Summary.of(data.source).packed()

    @cached_property
    def summary(self) -> Summary:
        """What sampling needs to know about the training molecules."""
        return Summary.unpacked(self.statistics)

    def _counts(self, known: Summary) -> dict[str, int]:
        """Number of classes of each part, a mask class included."""
        real = classes(known.vocabulary, self.options.coupling.fakes > 0)
        return {name: count + (self.options.path.classes == "masked") for name, count in real.items()}

    @cached_property
    def conditions(self) -> tuple[str, ...]:
        """The properties that condition the network."""
        return conditioning.names(self.options.objective.condition, self.summary.properties, "objective.condition")

    @cached_property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutations(), Rotations())

    @cached_property
    def equivariant(self) -> bool:
        return not self.augmentations

    @cached_property
    def network_symmetries(self) -> tuple[Symmetry, ...]:
        return self.symmetries[:1] if self.options.network.kind == "transformer" else self.symmetries

    @cached_property
    def _std(self) -> float:
        """The standard deviation of the noise, angstrom."""
        return self.options.path.std or self.summary.spread

    def build_flow(self, statistics: Statistics) -> Flow:
        o, known = self.options, self.summary
        real = classes(known.vocabulary, o.coupling.fakes > 0)
        path, prior = recipe.path(o.path, real, self._std)
        given = {name: known.properties[name] for name in self.conditions}
        kinds = network.Kinds.of(self._counts(known), self._std, o.objective.self_condition > 0, given)
        trained = recipe.worn(o.objective, network.network(o.network, kinds))
        return Flow(path, prior, trained, recipe.sampler(o.sample, tuple(real), self.conditions, o.coupling.kind))

    def build_objective(self, statistics: Statistics) -> FlowMatching:
        o, vocabulary = self.options, self.summary.vocabulary
        real = classes(vocabulary, o.coupling.fakes > 0)
        pairs = recipe.coupling(o.coupling, real, self.prior, len(vocabulary.elements))  # type: ignore[arg-type]
        return recipe.objective(o.objective, pairs, self.conditions, self._std)

    @cached_property
    def _wanted(self) -> conditioning.Request:
        """The request for new molecules, from the options; a fragment is read once."""
        o, known = self.options, self.summary
        fragment, origin = None, torch.zeros(3)
        if o.sample.fragment is not None:
            fragment, origin = fragment_of(o.sample.fragment, known.vocabulary)
        return conditioning.Request(
            known.histogram, self._counts(known), self.conditions, o.sample.atoms, o.sample.target, fragment, origin,
            o.coupling.fakes,
        )  # fmt: skip

    def request(
        self, n: int, atoms: int | str | None = None, target: str | None = None
    ) -> Context:
        """``n`` molecules; see :class:`~.conditioning.Request`."""
        return self._wanted(n, atoms, target)

    def decode(self, state: dict[str, Tensor], context: Context) -> list[Molecule]:
        """States ``(B, N, ...)`` to molecules in angstrom; undecided atoms have the atomic number 0. Requested
        properties are in their properties as ``target_NAME``. With dummy atoms, the class beyond the elements is that
        of dummies."""
        found, vocabulary, fakes = [], self.summary.vocabulary, self.options.coupling.fakes > 0
        x = {name: part.detach().cpu() for name, part in state.items()}
        numbers = {name: part.argmax(-1) for name, part in x.items() if name != "positions"}
        cond = {name: value.detach().cpu() for name, value in context.cond.items()}
        there = context.mask.cpu() & (numbers["atoms"] != len(vocabulary.elements) if fakes else context.mask.cpu())
        for i, real in enumerate(there):
            places = x["positions"][i][real] + (cond["origin"][i] if "origin" in cond else 0.0)
            charges = numbers["charges"][i][real] if "charges" in numbers else None
            made = vocabulary.decode(
                places, numbers["atoms"][i][real], numbers["bonds"][i][real][:, real], charges, f"sample_{i:04d}"
            )
            targets = {f"target_{name}": float(cond[name][i]) for name in self.conditions if name in cond}
            targets = {name: value for name, value in targets.items() if value == value}
            found.append(replace(made, properties={**made.properties, **targets}) if targets else made)
        return found

    def encode(self, samples: Sequence[Molecule]) -> tuple[dict[str, Tensor], Context]:
        """Molecules as states, with ``sample.target`` and the coordinates of their centres. Raises UserError for an
        element, a charge or a bond that is not known, and if a fragment is requested too."""
        if self.options.sample.fragment is not None:
            raise UserError("variants of a file hold no fragment: leave out fragment=")
        vocabulary, items = self.summary.vocabulary, []
        wanted = conditioning.targets(self.options.sample.target, self.conditions)
        for molecule in samples:
            real = molecule if vocabulary.hydrogens else without_hydrogens(molecule)
            try:
                state = vocabulary.encode(real)
            except ValueError as error:
                raise UserError(f"{molecule.name}: {error}") from error
            cond = {name: torch.tensor(wanted.get(name, torch.nan)) for name in self.conditions}
            items.append((state, {**cond, "origin": real.positions.mean(0)}))
        names = (*self.conditions, "origin")
        corners = recipe.OneHot(_Listed(items), self._counts(self.summary), names)
        return collate(self.path.space, [corners[i] for i in range(len(items))])

    def read(self, paths: Sequence[Any]) -> list[Molecule]:
        """The molecules of SDF files."""
        return files.read(paths, hydrogens=self.summary.vocabulary.hydrogens)

    def write(self, samples: Sequence[Molecule], folder: FilePath, first: int = 0) -> list[FilePath]:
        """Files of molecules; see :func:`~.files.write`."""
        return files.write(samples, folder, first)

    def trajectory(self, frames: Sequence[Sequence[Molecule]], folder: FilePath, first: int = 0) -> list[FilePath]:
        """The trajectories of molecules; see :func:`~.files.trajectory`."""
        return files.trajectory(frames, folder, first)

    def build_metrics(self) -> Mapping[str, Metric]:
        return measures.metrics(self.options.metrics, Judged(self))

    def references(self, samples: Sequence[Molecule]) -> dict[str, list[Molecule]]:
        """Molecules held out from training, and training molecules."""
        return measures.references(samples, self.library, torch.Generator().manual_seed(0))

    def report(self, rows: Mapping[str, list[Molecule]], folder: FilePath) -> list[FilePath]:
        """Pictures of all rows."""
        return pictures.report(rows, folder)

    def per_sample_metrics(self, samples: Sequence[Molecule]) -> list[dict[str, Any]]:
        """SMILES, validity and the other measurements of each sample."""
        return measures.table(samples, Judged(self), self.options.metrics)

    def write_provenance(self, folder: FilePath) -> list[FilePath]:
        """``dropped.csv``, the molecules that were left out, if there are any."""
        return files.drops(self.library, folder)


class _Listed(list[Any]):
    """Items as a data set."""

    @property
    def sizes(self) -> Tensor:
        return torch.tensor([len(state["atoms"]) for state, _ in self])


class Judged:
    """The references of the metrics: small ones from the statistics, the training molecules from the data, if those
    exist."""

    def __init__(self, domain: MoleculeDomain) -> None:
        self.domain = domain
        self.vocabulary, self.valences = domain.summary.vocabulary, domain.summary.valences

    @cached_property
    def smiles(self) -> Container[str] | None:
        try:
            return self.domain.library.smiles
        except UserError:
            return None


def classes(vocabulary: Vocabulary, fakes: bool = False) -> dict[str, int]:
    """Real classes of each part; with ``fakes`` the last class of atoms is that of dummies. If all charges are 0 they
    are not part of the state."""
    charges = {"charges": len(vocabulary.charges)} if len(vocabulary.charges) > 1 else {}
    return {"atoms": max(2, len(vocabulary.elements) + fakes), "bonds": len(vocabulary.bonds), **charges}


def fragment_of(file: str, vocabulary: Vocabulary) -> tuple[dict[str, Tensor], Tensor]:
    """The state of the first molecule of a file, and the coordinates of its centre, angstrom. Raises UserError if there
    is none, or its classes are not known."""
    found: list[Molecule] = files.read([file])
    if not found:
        raise UserError(f"sample.fragment={file}: no molecule in it")
    fragment = found[0] if vocabulary.hydrogens else without_hydrogens(found[0])
    try:
        return vocabulary.encode(fragment), fragment.positions.mean(0)
    except ValueError as error:
        raise UserError(f"sample.fragment={file}: {error}") from error


build = MoleculeDomain
