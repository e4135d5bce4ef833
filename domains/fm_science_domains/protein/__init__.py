"""Protein backbones: one rigid frame per residue, learned from real chains, written as PDB and mmCIF.

A chain of N residues is a point of SE(3)^N: a position of its alpha carbon (nanometres inside the model, angstrom in
files) and a rotation for each residue. The network is equivariant under rotations and translations, but not under
reflections, since proteins are chiral.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

from torch import Tensor

from fm_science.data import TrainingData
from fm_science.domain import Domain, Statistics
from fm_science.errors import OptionError
from fm_science.files import write_dropped
from fm_science.flow import Flow
from fm_science.metrics import Metric
from fm_science.objectives import FlowMatching
from fm_science.state import Context
from fm_science.symmetries import Rotations

from . import drawn, recipe, variants
from . import metrics as measures
from . import report as pictures
from .closure import close_chain
from .data import Chains, Data, Structures, load
from .files import write_trajectory
from .meanings import MEANINGS
from .motif import Scaffolding
from .network import FrameTransformer, Network
from .recipe import Coupling, Objective, Path, Sample
from .stored import ChainPreparation
from .structure import Backbone


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


class Protein(Domain):
    """The protein domain.

    Raises:
        OptionError: for an unknown option or a value that does not fit.
        UserError: when there are no chains to learn from, or a motif cannot be read.
    """

    name = "protein"
    metric_meanings = MEANINGS
    options: Options
    slow = measures.SLOW
    trace_atom = "CA"

    def check_options(self) -> None:
        recipe.wishes(self.options.sample)

    def load_data(self) -> TrainingData:
        o = self.options.data
        chains = load(o)
        return TrainingData(*chains, o.batch, o.budget, o.workers, chains, chains[0].digest)

    def preparation(self) -> ChainPreparation:
        return ChainPreparation(vars(self.options.data))

    @property
    def chains(self) -> tuple[Chains, Chains]:
        """The training and validation chains."""
        return self.data.source

    def fit_statistics(self, data: TrainingData) -> Statistics:
        """The lengths and the secondary structures of training chains, for new chains to follow."""
        return {"structures": Structures.of(data.source[0]).packed()}

    def build_flow(self, statistics: Statistics) -> Flow:
        path, prior = recipe.path(self.options.path)
        return Flow(path, prior, FrameTransformer(self.options.network), recipe.sampler(self.options.sample, path))

    def build_objective(self, statistics: Statistics) -> FlowMatching:
        o = self.options
        return recipe.objective(o.objective, Scaffolding(self.prior, o.coupling.motifs), o.path.rotation_rate)

    @cached_property
    def symmetries(self) -> tuple[Rotations]:
        return (Rotations(),)

    @cached_property
    def structures(self) -> Structures:
        """The structures that new chains follow."""
        return Structures.unpacked(self.statistics["structures"])

    def request(self, n: int, **sample: Any) -> Context:
        """``n`` chains; see :func:`~.recipe.request`."""
        return recipe.request(n, self.options.sample, self.structures, **sample)

    def decode(self, state: dict[str, Tensor], context: Context) -> list[Backbone]:
        """Chains in angstrom with N, CA, C and O; unless ``sample.closure`` is none, their bonds are closed and ``raw``
        has the coordinates before that. See :func:`~.drawn.decode`."""
        return drawn.decode(state, context, None if self.options.sample.closure == "none" else close_chain)

    def encode(self, samples: Sequence[Backbone]) -> tuple[dict[str, Tensor], Context]:
        """Chains as frames, for variants of them; see :func:`~.variants.encode`. Raises OptionError if a motif or
        shares of helix and strand are requested too, or a blueprint of another length."""
        o = self.options.sample
        if o.motif or o.helix is not None or o.strand is not None:
            raise OptionError("variants of a file follow its chain: leave out motif=, helix= and strand=")
        return variants.encode(samples, o.structure, o.sheet)

    def read(self, paths: Sequence[Any]) -> list[Backbone]:
        """The chains of PDB and mmCIF files; including broken ones, since they are to be evaluated."""
        return drawn.read(paths)

    def write(self, samples: Sequence[Backbone], folder: FilePath, first: int = 0) -> list[FilePath]:
        """PDB and mmCIF files of samples, numbered from ``first``, and what belongs to them (:func:`~.drawn.write`)."""
        return drawn.write(samples, folder, first, sequences=self.options.sample.sequences)

    def trajectory(self, frames: Sequence[Sequence[Backbone]], folder: FilePath, first: int = 0) -> list[FilePath]:
        """One PDB file per sample with one MODEL per step, numbered from ``first``; bonds are closed in the last one
        only."""
        folder = FilePath(folder) / "trajectories"
        frames = [*([_open(chain) for chain in chains] for chains in frames[:-1]), *frames[-1:]]
        folder.mkdir(parents=True, exist_ok=True)
        return [
            write_trajectory(way, folder / f"sample_{first + i:04d}.pdb")
            for i, way in enumerate(zip(*frames, strict=True))
        ]  # fmt: skip

    def build_metrics(self) -> Mapping[str, Metric]:
        return measures.metrics(self.options.metrics, lambda: self.chains[0].backbones)

    def references(self, samples: Sequence[Backbone]) -> dict[str, list[Backbone]]:
        """Held-out natives, training chains and random coils of similar lengths."""
        train, validation = self.chains
        return measures.references(samples, train.backbones, validation.backbones)

    def report(self, rows: Mapping[str, list[Backbone]], folder: FilePath) -> list[FilePath]:
        """``overview.png`` and ``traces.png``."""
        return pictures.report(rows, folder)

    def per_sample_metrics(self, samples: Sequence[Backbone]) -> list[dict[str, Any]]:
        """All numbers of each chain, and its secondary structure in letters."""
        return measures.per_sample(samples)

    def write_provenance(self, folder: FilePath) -> list[FilePath]:
        """``dropped.csv``, the chains that were left out, if there are any."""
        dropped = self.chains[0].dropped
        return [write_dropped(dropped, folder / "dropped.csv")] if dropped else []


def _open(chain: Backbone) -> Backbone:
    """A chain as it was before its bonds were closed."""
    return chain if chain.raw is None else replace(chain, coords=chain.raw)


build = Protein
