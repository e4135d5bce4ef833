"""Protein backbones: one rigid frame a residue, learned from real chains, written as PDB and mmCIF.

A chain of N residues is a point of SE(3)^N: a position of its alpha carbon (nanometres inside the model, angstrom in
files) and a rotation for each residue. The network is equivariant under rotations and translations, and not under
reflections, since proteins have a hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path as FilePath
from typing import Any

from fm_science.data import TrainingData
from fm_science.domain import Domain, groups
from fm_science.files import write_dropped
from fm_science.symmetries import Rotations

from . import drawn, recipe
from . import metrics as measures
from . import report as pictures
from .data import Data, load
from .files import write_trajectory
from .motif import Scaffolding
from .network import FrameTransformer, Network
from .recipe import Coupling, Objective, Path, Sample
from .structure import Backbone

OPTIONS = {
    "data": Data, "network": Network, "path": Path, "coupling": Coupling, "objective": Objective, "sample": Sample,
    "metrics": measures.Metrics,
}  # fmt: skip


def build(
    data: Any = None, network: Any = None, path: Any = None, coupling: Any = None, objective: Any = None,
    sample: Any = None, metrics: Any = None,
) -> Domain:  # fmt: skip
    """The protein domain. Each argument is an options dataclass of this package, a mapping of its fields, or None.

    Raises:
        OptionError: for an unknown option or a value that does not fit.
        UserError: when there are no chains to learn from, or a motif cannot be read.
    """
    o = groups(OPTIONS, locals())
    recipe.wishes(o["sample"])
    train, validation = load(o["data"])
    trained, prior = recipe.path(o["path"])
    return Domain(
        name="protein",
        path=trained,
        prior=prior,
        network=FrameTransformer(o["network"]),
        data=TrainingData(train, validation, o["data"].batch, o["data"].budget, o["data"].workers),
        objective=recipe.objective(o["objective"], Scaffolding(prior, o["coupling"].motifs), o["path"].rotation_rate),
        sampler=recipe.sampler(o["sample"], trained),
        symmetries=(Rotations(),),
        request=partial(recipe.request, options=o["sample"], chains=train),
        decode=drawn.decode,
        read=drawn.read,
        write=partial(drawn.write, sequences=o["sample"].sequences),
        metrics=measures.metrics(o["metrics"], train.backbones),
        report=pictures.report,
        references=lambda samples: measures.references(samples, train.backbones, validation.backbones),
        trajectory=trajectory,
        record=lambda folder: [write_dropped(train.dropped, folder / "dropped.csv")] if train.dropped else [],
        table=measures.per_sample,
        slow=measures.SLOW,
        options=OPTIONS,
    )


def trajectory(frames: Sequence[Sequence[Backbone]], folder: FilePath, first: int = 0) -> list[FilePath]:
    """One PDB file a sample with a MODEL a step, numbered from ``first``; ``frames[k][i]`` is sample i after step k."""
    folder = FilePath(folder) / "trajectories"
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_trajectory(way, folder / f"sample_{first + i:04d}.pdb")
        for i, way in enumerate(zip(*frames, strict=True))
    ]  # fmt: skip
