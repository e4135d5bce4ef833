"""Point clouds: particle systems with exact energies, shapes, and clouds of the user's own.

A cloud of N points in the plane or in space is a point of the space of centred clouds. Its distribution is invariant
under reordering, translation and rotation, and so is the network. If the energy is known, samples can be weighted and
evaluated exactly: see :mod:`fm_science_domains.point_cloud.boltzmann`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from fm_science.data import TrainingData, collate
from fm_science.domain import Domain, Statistics
from fm_science.errors import UserError, nearest
from fm_science.files import write_dropped
from fm_science.flow import Flow
from fm_science.metrics import Metric
from fm_science.objectives import Objective as Loss
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.spaces import Centered
from fm_science.state import Context
from fm_science.symmetries import Permutations, Rotations, Symmetry

from . import boltzmann, recipe, upright
from . import metrics as measures
from . import report as pictures
from .data import Data, Sets, Summary, load
from .energies import Energy
from .files import Cloud, read, trajectories, write
from .meanings import MEANINGS
from .recipe import Coupling, Network, Objective, Path, Sample
from .stored import CloudPreparation
from .systems import imported, named

LARGE = 200  # coordinates of a cloud, up to which its likelihood is measured without an energy


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


class PointCloud(Domain):
    """The domain of point clouds.

    Raises:
        OptionError: for an unknown option or a value that does not fit.
        UserError: when there are no clouds to learn from, or reference samples fail their tests.
    """

    name = "point_cloud"
    metric_meanings = MEANINGS
    options: Options

    def load_data(self) -> TrainingData:
        o = self.options.data
        sets = load(o, None if self.given is None else self.summary)
        return TrainingData(sets.train, sets.held_out, o.batch, o.budget, o.workers, sets, sets.digest)

    def preparation(self) -> CloudPreparation:
        return CloudPreparation(vars(self.options.data))

    @property
    def sets(self) -> Sets:
        """All data that were read."""
        return self.data.source

    def fit_statistics(self, data: TrainingData) -> Statistics:
        """Dimensions, standard deviation, sizes and classes."""
        return vars(Summary.of(data.source))

    @cached_property
    def summary(self) -> Summary:
        """What sampling needs to know about the training clouds."""
        return Summary.unpacked(self.statistics)

    @cached_property
    def symmetries(self) -> tuple[Symmetry, ...]:
        dim = self.summary.dim
        turns = dim > 1 and not self.options.data.upright
        return (Permutations(), *((Rotations(dim),) if turns else ()))

    @cached_property
    def equivariant(self) -> bool:
        return not self.augmentations

    @cached_property
    def network_symmetries(self) -> tuple[Symmetry, ...]:
        return self.symmetries[:1] if self.options.network.kind == "transformer" else self.symmetries

    def build_flow(self, statistics: Statistics) -> Flow:
        o, known = self.options, self.summary
        network = recipe.network(o.network, known, o.objective.kind == "flow_map")
        return Flow(Geodesic(Centered(known.dim)), self._noise(), network, recipe.sampler(o.sample, o.objective))

    def _noise(self) -> Normal:
        """The prior, with the standard deviation of the options, else 1 for systems and that of the data for files."""
        std = self.options.path.std
        if std is not None and std <= 0:
            raise UserError(f"path.std={std}: expected a positive number")
        return Normal((self.summary.spread if self.summary.system is None else 1.0) if std is None else std)

    def build_objective(self, statistics: Statistics) -> Loss:
        o = self.options
        return recipe.objective(o.objective, recipe.coupling(o.coupling, self.summary), self.summary, o.data.upright)

    def request(
        self, n: int, points: int | None = None, label: str | None = None, known: str | None = None
    ) -> Context:  # fmt: skip
        """``n`` clouds of a given number of points, or of sizes drawn from the training clouds; of a class, or of
        classes drawn from them; and with ``known`` those that complete the cloud of a file.

        Raises:
            UserError: for a class or a size that does not exist, or a cloud to complete that does not fit.
        """
        o, summary = self.options.sample, self.summary
        points = o.points if points is None else points
        label, known = label or o.label, known or o.known
        sizes, labels = summary.draw(n)
        if points is not None:
            if summary.system is not None and points != int(summary.kinds[0, 0]):
                raise UserError(f"sample.points={points}: {summary.system} has {int(summary.kinds[0, 0])} points")
            sizes = torch.full((n,), points)
        cond = {}
        if summary.classes:
            if label is not None and label not in summary.classes:
                raise UserError(f"sample.label={label}: {nearest(label, summary.classes)}")
            cond["label"] = labels if label is None else torch.full((n,), summary.classes.index(label))
        elif label is not None:
            raise UserError(f"sample.label={label}: these clouds have no classes")
        if self.options.data.upright:
            cond["turn"] = upright.poses(n, summary.dim)
        context = Context(torch.arange(int(sizes.max())) < sizes[:, None], cond)
        return context if known is None else self._completing(context, known)

    def _completing(self, context: Context, file: str) -> Context:
        """The context in which the first points of each cloud are those of a file; ``origin`` is its former centre, and
        ``turn`` rotates oriented clouds back to its pose."""
        part, dim = read([file])[0].points.float(), self.summary.dim
        if part.shape[1] != dim:
            raise UserError(f"sample.known={file}: its points have {part.shape[1]} coordinates, not {dim}")
        n, sites = context.mask.shape
        if len(part) >= int(context.mask.sum(1).min()):
            raise UserError(
                f"sample.known={file} has {len(part)} points already; ask for more, e.g. points={2 * len(part)}"
            )
        cond = {**context.cond, "origin": part.mean(0).expand(n, -1)}
        stood = part - part.mean(0)
        if self.options.data.upright:
            turn = upright.axes(stood[None])
            stood, cond["turn"] = stood @ turn[0], turn.mT.expand(n, -1, -1)
        known = torch.zeros(n, sites, dim)
        known[:, : len(part)] = stood
        free = (torch.arange(sites) >= len(part)).expand(n, sites)
        return Context(context.mask, cond, free, known)

    def decode(self, state: Tensor, context: Context) -> list[Cloud]:
        """States ``(B, N, D)`` to clouds without their padding, oriented ones in the pose that was drawn for them;
        completed ones at the given part."""
        classes = self.summary.classes
        labels = context.cond["label"].tolist() if "label" in context.cond else [-1] * len(state)
        names = [classes[k] if 0 <= k < len(classes) else "" for k in labels]
        origin = context.cond["origin"][:, None].to(state) if "origin" in context.cond else 0.0
        state = state @ context.cond["turn"].to(state) if "turn" in context.cond else state
        clouds = zip((state + origin).detach().cpu(), context.mask.cpu(), names, strict=True)
        return [Cloud(x[real].float(), f"sample_{i:04d}", name) for i, (x, real, name) in enumerate(clouds)]

    def encode(self, samples: Sequence[Cloud]) -> tuple[Tensor, Context]:
        """Clouds as centred points, and their former centres; oriented ones on their axes, and the rotation back. A
        class is that of the cloud, else ``sample.label``. Raises UserError for clouds of other dimensions or
        classes."""
        dim, names = self.summary.dim, self.summary.classes
        items = []
        for cloud in samples:
            if cloud.points.shape[1] != dim:
                raise UserError(f"{cloud.name}: its points have {cloud.points.shape[1]} coordinates, not {dim}")
            points, cond = cloud.points.float(), {"origin": cloud.points.float().mean(0)}
            points = points - cond["origin"]
            if names:
                label = cloud.label or self.options.sample.label or ""
                if label not in names:
                    raise UserError(f"{cloud.name}: its class {label!r} was not trained; {nearest(label, names)}")
                cond["label"] = torch.tensor(names.index(label))
            if self.options.data.upright:
                turn = upright.axes(points[None])[0]
                points, cond["turn"] = points @ turn, turn.mT
            items.append((points, cond))
        return collate(Centered(dim), items)

    def read(self, paths: Sequence[Any]) -> list[Cloud]:
        """The clouds of .npz, .csv, .xyz and .ply files."""
        return read(paths)

    def write(self, samples: Sequence[Cloud], folder: FilePath, first: int = 0) -> list[FilePath]:
        """Files of clouds; see :func:`~.files.write`."""
        return write(samples, folder, first)

    def trajectory(self, frames: Sequence[Sequence[Cloud]], folder: FilePath, first: int = 0) -> list[FilePath]:
        """One .xyz file per sample with one frame per step, and a picture of the first trajectories; numbered from
        ``first``."""
        files = trajectories(frames, folder, first)
        return [*files, pictures.paths(frames, files[0].parent / f"ways_{first:06d}.png")]

    @cached_property
    def energy(self) -> Energy | None:
        """The energy of the clouds, if one is known."""
        o = self.options.data
        if self.summary.system is None:
            return imported(o.energy) if o.energy else None
        system = named(o.source, o.factor, o.points or 4, o.dim)
        return None if system is None else system.energy

    def _known_energy(self) -> Energy:
        energy = self.energy
        assert energy is not None, "asked for where one is known"
        return energy

    def build_metrics(self) -> Mapping[str, Metric]:
        o = self.options
        scored = self.summary.system is not None or o.data.energy is not None
        return measures.metrics(o.metrics, self._known_energy if scored else None, o.data.source == "shapes")

    def references(self, samples: Sequence[Cloud]) -> dict[str, list[Cloud]]:
        """Held-out clouds, and training clouds."""
        return measures.references(self.options.metrics, self.sets, samples)

    def report(self, rows: Mapping[str, list[Cloud]], folder: FilePath) -> list[FilePath]:
        """Pictures of all rows."""
        return pictures.report(self.energy, rows, folder)

    def evaluate_flow(self, flow: Flow, folder: FilePath | None = None) -> dict[str, float]:
        """Likelihood of held-out clouds, importance weights and paths of new ones, with their known bounds; and
        ``weighted.png`` in the folder, if there is an energy.

        Only clouds of the most common size are used, since numbers of different dimensions cannot be averaged. Clouds
        with classes are not evaluated, nor large ones without an energy, whose exact traces are too expensive. If
        neither likelihoods nor weights are requested, only path lengths are measured, which need no traces.
        """
        o, sets = self.options.metrics, self.sets
        size = int(sets.held_out.sizes.mode().values)
        if sets.classes:
            return {}
        if not o.likelihood and not o.weighted:
            return boltzmann.ways(flow, o.ways, size, o.steps)[1] if o.ways > 1 else {}
        if sets.energy is None and size * sets.dim > LARGE:
            return {}
        same = [c for c in sets.held_out.clouds if len(c) == size][: o.likelihood]
        held_out = torch.stack(same) if same else torch.zeros(0, size, sets.dim)
        chosen = boltzmann.Work(max(2, o.weighted), o.steps)
        return boltzmann.appraise(flow, sets.energy, held_out, chosen, sets.system, folder)

    def write_provenance(self, folder: FilePath) -> list[FilePath]:
        """The tests of the reference samples, as ``reference.json``; what was left out, as ``dropped.csv``."""
        r, s, dropped = self.sets.reference, self.sets.system, self.sets.dropped
        if r is None or s is None:
            return [write_dropped(dropped, folder / "dropped.csv")] if dropped else []
        found = {"mean_energy": r.mean_energy, "virial": r.virial, "log_z": r.log_z, "log_z_above": r.log_z_above}
        known = {"mean_energy": s.mean_energy, "virial": (s.freedom, 0.0), "log_z": s.log_z}
        energy = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(s.energy))
        about = {"system": s.name, "energy": energy, "clouds": len(r.x), "measured": found, "known": known}
        (folder / "reference.json").write_text(json.dumps(about, indent=2) + "\n")
        return [folder / "reference.json"]


build = PointCloud
