"""Protein backbones: one rigid frame a residue, learned from real chains, written as PDB and mmCIF.

A chain of N residues is a point of SE(3)^N: a position of its alpha carbon (nanometres inside the model, angstrom in
files) and a rotation for each residue. The network is equivariant under rotations and translations, and not under
reflections, since proteins have a hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from fm_science.data import TrainingData
from fm_science.domain import Domain, groups
from fm_science.files import write_dropped
from fm_science.state import Context, tree_map
from fm_science.symmetries import Rotations

from . import asked, recipe
from . import metrics as measures
from . import report as pictures
from .data import Data, load
from .files import read, write_cif, write_pdb, write_trajectory
from .motif import Scaffolding
from .network import FrameTransformer, Network
from .recipe import Coupling, Objective, Path, Sample
from .structure import NANOMETRE, Backbone, backbone, with_oxygen

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
        decode=decode,
        read=read,
        write=write,
        metrics=measures.metrics(o["metrics"], train.backbones),
        report=pictures.report,
        references=lambda samples: measures.references(samples, train.backbones, validation.backbones),
        trajectory=trajectory,
        record=lambda folder: [write_dropped(train.dropped, folder / "dropped.csv")] if train.dropped else [],
        table=measures.per_sample,
        slow=measures.SLOW,
        options=OPTIONS,
    )


def decode(state: dict, context: Context) -> list[Backbone]:
    """Frames ``(B, N, ...)`` in nanometres to chains in angstrom with N, CA, C and O, with what was asked of them.
    Chains around a motif stand where the motif stood, and have its residues' letters."""
    state, context = tree_map(Tensor.cpu, state), context.to("cpu")
    places = NANOMETRE * state["translations"] + context.cond.get("origin", torch.zeros(1, 3))[:, None]
    letters, frozen = context.cond.get("sequence"), context.frozen("nodes")
    found = []
    for i, real in enumerate(context.mask):
        atoms = backbone(state["rotations"][i][real], places[i][real])
        sequence = None if letters is None else "".join(map(chr, letters[i][real].tolist()))
        held = None if frozen is None else frozen[i][real]
        chain = Backbone(with_oxygen(*atoms).float(), sequence, f"sample_{i:04d}", held=held)
        found.append(replace(chain, **asked.words(context, i)))
    return found


def write(samples: Sequence[Backbone], folder: FilePath, first: int = 0) -> list[FilePath]:
    """One PDB and one mmCIF file a sample, numbered from ``first``."""
    folder = FilePath(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = [folder / f"sample_{first + i:04d}" for i in range(len(samples))]
    return [
        saved
        for name, chain in zip(names, samples, strict=True)
        for saved in (write_pdb(chain, name.with_suffix(".pdb")), write_cif(chain, name.with_suffix(".cif")))
    ]


def trajectory(frames: Sequence[Sequence[Backbone]], folder: FilePath, first: int = 0) -> list[FilePath]:
    """One PDB file a sample with a MODEL a step, numbered from ``first``; ``frames[k][i]`` is sample i after step k."""
    folder = FilePath(folder) / "trajectories"
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_trajectory(way, folder / f"sample_{first + i:04d}.pdb")
        for i, way in enumerate(zip(*frames, strict=True))
    ]  # fmt: skip
