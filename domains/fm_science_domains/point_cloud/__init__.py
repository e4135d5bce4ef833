"""Point clouds: particle systems with exact energies, and clouds of the user's own.

A cloud of N points in the plane or in space is a point of the space of centred clouds. Its law does not care about
order, position or pose, and neither does the network. Where the energy is known, samples can be weighted and judged
exactly: see :mod:`fm_science_domains.point_cloud.boltzmann`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import torch

from fm_science.data import TrainingData
from fm_science.domain import Domain, group
from fm_science.errors import UserError
from fm_science.flow import Flow, Sampler
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.spaces import Centered
from fm_science.state import Context
from fm_science.symmetries import Permutations, Rotations

from . import boltzmann, recipe
from . import metrics as measures
from . import report as pictures
from .data import Data, Sets, load
from .files import Cloud, read, trajectories, write
from .recipe import Coupling, Network, Objective, Path, Sample

OPTIONS = {
    "data": Data, "network": Network, "path": Path, "coupling": Coupling, "objective": Objective, "sample": Sample,
    "metrics": measures.Metrics,
}  # fmt: skip


def build(
    data: Any = None, network: Any = None, path: Any = None, coupling: Any = None, objective: Any = None,
    sample: Any = None, metrics: Any = None,
) -> Domain:  # fmt: skip
    """The domain of point clouds. Each argument is an options dataclass of this package, a mapping, or None.

    Raises:
        OptionError: for an unknown option or a value that does not fit.
        UserError: when there are no clouds to learn from, or reference samples fail their tests.
    """
    given = {
        "data": data, "network": network, "path": path, "coupling": coupling, "objective": objective, "sample": sample,
        "metrics": metrics,
    }  # fmt: skip
    o = {name: group(kind, given[name], name) for name, kind in OPTIONS.items()}
    sets = load(o["data"])
    return Domain(
        name="point_cloud",
        path=Geodesic(Centered(sets.dim)),
        prior=Normal(noise(o["path"], sets)),
        network=recipe.network(o["network"], sets.spread, o["objective"].kind == "flow_map"),
        data=TrainingData(sets.train, sets.held_out, o["data"].batch, o["data"].budget, o["data"].workers),
        objective=recipe.objective(o["objective"], recipe.coupling(o["coupling"], sets.dim, sets.train.sizes)),
        sampler=Sampler(recipe.solver(o["objective"]), o["sample"].steps),
        symmetries=(Permutations(), *((Rotations(sets.dim),) if sets.dim > 1 else ())),
        request=partial(request, sets, o["sample"]),
        decode=decode,
        read=read,
        write=write,
        metrics=measures.metrics(sets.energy),
        report=partial(pictures.report, sets.energy),
        references=partial(measures.references, o["metrics"], sets),
        trajectory=trajectory,
        record=partial(record, sets),
        appraise=partial(appraise, sets, o["metrics"]),
        options=OPTIONS,
    )


def noise(o: Path, sets: Sets) -> float:
    """The spread of the prior: as asked, else 1 for systems and that of the data for files."""
    if o.std is None:
        return 1.0 if sets.system is not None else sets.spread
    if o.std <= 0:
        raise UserError(f"path.std={o.std}: expected a positive spread")
    return o.std


def request(sets: Sets, o: Sample, n: int, points: int | None = None) -> Context:
    """``n`` clouds of so many points, or of sizes drawn from the training clouds."""
    points = o.points if points is None else points
    if points is not None and sets.system is not None and points != sets.system.points:
        raise UserError(f"sample.points={points}: {sets.system.name} has {sets.system.points} points")
    chosen = sets.train.sizes[torch.randint(len(sets.train), (n,))] if points is None else torch.full((n,), points)
    return Context(torch.arange(int(chosen.max())) < chosen[:, None])


def appraise(sets: Sets, o: measures.Metrics, flow: Flow) -> dict[str, float]:
    """Likelihood of held-out clouds, importance weights and paths of new ones, with the known floors beside them.

    Only clouds of the commonest size are taken, since numbers of different dimensions cannot be averaged.
    """
    if not o.likelihood and not o.weighted:
        return {}
    size = int(sets.held_out.sizes.mode().values)
    same = [c for c in sets.held_out.clouds if len(c) == size][: o.likelihood]
    held_out = torch.stack(same) if same else torch.zeros(0, size, sets.dim)
    chosen = boltzmann.Work(max(2, o.weighted), o.steps)
    return boltzmann.appraise(flow, sets.energy, held_out, chosen, sets.system)


def decode(state: torch.Tensor, context: Context) -> list[Cloud]:
    """States ``(B, N, D)`` to clouds without their padding."""
    clouds = zip(state.detach().cpu(), context.mask.cpu(), strict=True)
    return [Cloud(x[real].float(), f"sample_{i:04d}") for i, (x, real) in enumerate(clouds)]


def trajectory(frames: Sequence[Sequence[Cloud]], folder: FilePath, first: int = 0) -> list[FilePath]:
    """One .xyz file a sample with a frame a step, and a picture of the first ways; numbered from ``first``."""
    files = trajectories(frames, folder, first)
    return [*files, pictures.paths(frames, files[0].parent / f"ways_{first:06d}.png")]


def record(sets: Sets, folder: FilePath) -> list[FilePath]:
    """How the reference samples were tested, as ``reference.json``."""
    if sets.reference is None or sets.system is None:
        return []
    r, s = sets.reference, sets.system
    found = {"mean_energy": r.mean_energy, "virial": r.virial, "log_z": r.log_z}
    known = {"mean_energy": s.mean_energy, "virial": (s.freedom, 0.0), "log_z": s.log_z}
    energy = repr(s.energy).split(" at 0x")[0]
    told = {"system": s.name, "energy": energy, "clouds": len(r.x), "measured": found, "known": known}
    (folder / "reference.json").write_text(json.dumps(told, indent=2) + "\n")
    return [folder / "reference.json"]
