"""How far flows travel, by coupling: the same small network trained on Lennard-Jones clusters with each.

Every line trains an equivariant network of 30,000 weights for as many steps on the same batches of 16 clouds, then
draws 64 new clouds and measures the mean length of their ways from noise, over all coordinates together, by twelve
Runge-Kutta steps. Beside it stand how far noise and cloud lie apart after pairing, and where the energies of new clouds
lie. ``effort`` is that of the sampler that makes the data.
"""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from benchmarks.tables import Record, Result, Study, markdown
from benchmarks.training import Budget, adam, total, train
from fm_science import Context
from fm_science_domains.point_cloud import build
from fm_science_domains.point_cloud.boltzmann import ways
from fm_science_domains.point_cloud.energies import LennardJones

BATCH, SAMPLES = 16, 64
SYSTEMS = {"lj13": (13, 400, 0.25), "lj55": (55, 250, 0.5)}  #: points, training steps, effort
COUPLINGS = {"lj13": ("independent", "ot", "equivariant_ot"), "lj55": ("ot", "equivariant_ot")}


def measure(system: str, kind: str, steps: int) -> list[Record]:
    """One line of the table."""
    start, (points, _, effort) = time.process_time(), SYSTEMS[system]
    data = {"source": system, "train": 1152, "held_out": 128, "effort": effort}
    torch.manual_seed(0)
    domain = build(data=data, network={"width": 32, "layers": 3, "mutual": True}, coupling={"kind": kind})
    torch.manual_seed(0)
    flow, clouds, apart = domain.flow(), torch.stack(domain.data.train.clouds), []
    context, optimizer = Context.full(BATCH, points), adam(flow)

    def loss(step: int) -> Tensor:
        torch.manual_seed(step)
        x1 = clouds[torch.randint(len(clouds), (BATCH,))]
        pairs = domain.objective.pairs(flow, x1, context)
        apart.append((pairs.x1 - pairs.x0).flatten(1).norm(dim=1).mean())
        return total(domain.objective.losses(flow, pairs))

    train(flow, loss, optimizer, OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1), Budget(steps), clip=1.0)
    x, found = ways(flow, SAMPLES, points, steps=12)
    energy = LennardJones(points)(x.double()).median().item()
    return [{"apart": float(torch.stack(apart).mean()), **found, "energy": energy,
             "seconds": time.process_time() - start}]  # fmt: skip


def run(study: Study) -> Result:
    """Every coupling on each system."""
    records: list[Record] = []
    for system in study.chosen(list(SYSTEMS)):
        for kind in COUPLINGS[system]:
            work = partial(measure, system, kind, study.budget(SYSTEMS[system][1], 40))
            records += study.measure({"coupling": kind, "system": system}, work)
    numbers = {
        "apart": "pairs apart", "path_length": "path length", "path_length_error": "its standard error",
        "straightness": "straightness", "energy": "median energy of samples", "seconds": "processor seconds",
    }  # fmt: skip
    return Result(records, {"Ways of clusters": markdown(records, {"coupling": "", "system": "system"}, numbers)})
