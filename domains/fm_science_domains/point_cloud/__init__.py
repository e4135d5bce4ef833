"""Point clouds: particle systems with exact energies, shapes, and clouds of the user's own.

A cloud of N points in the plane or in space is a point of the space of centred clouds. Its law does not care about
order, position or pose, and neither does the network. Where the energy is known, samples can be weighted and judged
exactly: see :mod:`fm_science_domains.point_cloud.boltzmann`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import torch

from fm_science.data import TrainingData
from fm_science.domain import Domain, groups
from fm_science.errors import UserError, nearest
from fm_science.files import write_dropped
from fm_science.flow import Flow
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.spaces import Centered
from fm_science.state import Context
from fm_science.symmetries import Permutations, Rotations

from . import boltzmann, recipe, upright
from . import metrics as measures
from . import report as pictures
from .data import Data, Sets, load
from .files import Cloud, read, trajectories, write
from .recipe import Coupling, Network, Objective, Path, Sample

LARGE = 200  # coordinates of a cloud, up to which its likelihood is measured without an energy
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
    o = groups(OPTIONS, locals())
    sets = load(o["data"])
    return Domain(
        name="point_cloud",
        path=Geodesic(Centered(sets.dim)),
        prior=Normal(noise(o["path"], sets)),
        network=recipe.network(o["network"], sets, o["objective"].kind == "flow_map"),
        data=TrainingData(sets.train, sets.held_out, o["data"].batch, o["data"].budget, o["data"].workers),
        objective=recipe.objective(o["objective"], recipe.coupling(o["coupling"], sets), sets),
        sampler=recipe.sampler(o["sample"], o["objective"]),
        symmetries=(Permutations(), *((Rotations(sets.dim),) if sets.dim > 1 and not sets.upright else ())),
        equivariant=o["network"].kind != "transformer",
        request=partial(request, sets, o["sample"]),
        decode=partial(decode, sets.classes),
        read=read,
        write=write,
        metrics=measures.metrics(o["metrics"], sets),
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


def request(
    sets: Sets, o: Sample, n: int, points: int | None = None, label: str | None = None, known: str | None = None
) -> Context:
    """``n`` clouds of so many points, or of sizes drawn from the training clouds; of a class, or of classes drawn from
    them; and with ``known`` those that complete the cloud of a file.

    Raises:
        UserError: for a class or a size that is not there, or a cloud to complete that does not fit.
    """
    points = o.points if points is None else points
    label, known = label or o.label, known or o.known
    if points is not None and sets.system is not None and points != sets.system.points:
        raise UserError(f"sample.points={points}: {sets.system.name} has {sets.system.points} points")
    drawn = torch.randint(len(sets.train), (n,))
    sizes = sets.train.sizes[drawn] if points is None else torch.full((n,), points)
    cond = {}
    if sets.classes:
        if label is not None and label not in sets.classes:
            raise UserError(f"sample.label={label}: {nearest(label, sets.classes)}")
        cond["label"] = sets.train.labels[drawn] if label is None else torch.full((n,), sets.classes.index(label))
    elif label is not None:
        raise UserError(f"sample.label={label}: these clouds have no classes")
    if sets.upright:
        cond["turn"] = upright.poses(n, sets.dim)
    context = Context(torch.arange(int(sizes.max())) < sizes[:, None], cond)
    return context if known is None else _completing(sets, context, known)


def _completing(sets: Sets, context: Context, file: str) -> Context:
    """The context in which the first points of each cloud are those of a file; ``origin`` is where their centre was,
    and ``turn`` brings upright clouds back into its pose."""
    part = read([file])[0].points.float()
    if part.shape[1] != sets.dim:
        raise UserError(f"sample.known={file}: its points have {part.shape[1]} coordinates, not {sets.dim}")
    n, sites = context.mask.shape
    if len(part) >= int(context.mask.sum(1).min()):
        raise UserError(
            f"sample.known={file} has {len(part)} points already; ask for more, e.g. points={2 * len(part)}"
        )
    cond = {**context.cond, "origin": part.mean(0).expand(n, -1)}
    stood = part - part.mean(0)
    if sets.upright:
        turn = upright.axes(stood[None])
        stood, cond["turn"] = stood @ turn[0], turn.mT.expand(n, -1, -1)
    known = torch.zeros(n, sites, sets.dim)
    known[:, : len(part)] = stood
    free = (torch.arange(sites) >= len(part)).expand(n, sites)
    return Context(context.mask, cond, free, known)


def appraise(sets: Sets, o: measures.Metrics, flow: Flow, folder: FilePath | None = None) -> dict[str, float]:
    """Likelihood of held-out clouds, importance weights and paths of new ones, with the known floors beside them;
    and ``weighted.png`` in the folder, where there is an energy.

    Only clouds of the commonest size are taken, since numbers of different dimensions cannot be averaged. Nothing is
    said of clouds with classes, and of large ones without an energy, whose exact traces cost too much. Where neither
    likelihoods nor weights are asked for, ways alone are measured, which cost no traces.
    """
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


def decode(classes: Sequence[str], state: torch.Tensor, context: Context) -> list[Cloud]:
    """States ``(B, N, D)`` to clouds without their padding, upright ones in the pose that was drawn for them; completed
    ones where their part was."""
    labels = context.cond["label"].tolist() if "label" in context.cond else [-1] * len(state)
    names = [classes[k] if 0 <= k < len(classes) else "" for k in labels]
    origin = context.cond["origin"][:, None].to(state) if "origin" in context.cond else 0.0
    state = state @ context.cond["turn"].to(state) if "turn" in context.cond else state
    clouds = zip((state + origin).detach().cpu(), context.mask.cpu(), names, strict=True)
    return [Cloud(x[real].float(), f"sample_{i:04d}", name) for i, (x, real, name) in enumerate(clouds)]


def trajectory(frames: Sequence[Sequence[Cloud]], folder: FilePath, first: int = 0) -> list[FilePath]:
    """One .xyz file a sample with a frame a step, and a picture of the first ways; numbered from ``first``."""
    files = trajectories(frames, folder, first)
    return [*files, pictures.paths(frames, files[0].parent / f"ways_{first:06d}.png")]


def record(sets: Sets, folder: FilePath) -> list[FilePath]:
    """How the reference samples were tested, as ``reference.json``; what was left out, as ``dropped.csv``."""
    if sets.reference is None or sets.system is None:
        return [write_dropped(sets.dropped, folder / "dropped.csv")] if sets.dropped else []
    r, s = sets.reference, sets.system
    found = {"mean_energy": r.mean_energy, "virial": r.virial, "log_z": r.log_z, "log_z_above": r.log_z_above}
    known = {"mean_energy": s.mean_energy, "virial": (s.freedom, 0.0), "log_z": s.log_z}
    energy = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(s.energy))
    told = {"system": s.name, "energy": energy, "clouds": len(r.x), "measured": found, "known": known}
    (folder / "reference.json").write_text(json.dumps(told, indent=2) + "\n")
    return [folder / "reference.json"]
