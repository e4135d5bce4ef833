"""The models that led to flow matching, side by side: one table, a row a law of data and a model.

    python -m benchmarks.lineage [--quick] [--docs] [--seeds 3] [--only MODEL] [LAW ...]

A model is what options of the domain ``table`` make of it, so each row can be trained by ``fm-science train`` too. All
have the same network size, first weights, order of data and number of steps. Columns: the Wasserstein-2 distance of
samples to held-out rows, and its floor (that of two sets of true rows); the exact negative log-likelihood of held-out
rows in nats, and the entropy of the law below which none can fall; kinetic energy and straightness of the ways, both in
standardised units (straightness is the mean squared departure from the straight way over its mean squared length: 0 is
straight; Liu et al. 2023, eq. 7); evaluations of the network by an adaptive solver at tolerance 1e-5; seconds of
processor time of the training.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import tables
from benchmarks.training import Budget, adam, cosine, total, train
from fm_science.couplings import Inpainting, Reflow
from fm_science.distances import wasserstein
from fm_science.flow import Flow
from fm_science.networks import TransportMap
from fm_science.objectives import FlowMatching
from fm_science.solvers import RK4, Adaptive, Heun
from fm_science.state import Context, State
from fm_science_domains.image.data import digits as shipped_digits
from fm_science_domains.table import Table
from fm_science_domains.table.appraisal import log_likelihood
from fm_science_domains.table.conditional import HeldCells
from fm_science_domains.table.laws import LAWS

DOCS = Path(__file__).resolve().parents[1] / "docs" / "lineage.md"
NAMES = ("8gaussians", "moons", "two_modes", "mixture10", "digits")
LIKELIHOOD = {"kind": "maximum_likelihood"}
FOLDER = tempfile.TemporaryDirectory(prefix="digits-")  #: of the rows that are made of pictures
NORMALISING = {"kind": "normalising_flow"}
MODELS: dict[str, dict[str, Any]] = {
    "flow matching": {},
    "minibatch transport": {"coupling": {"kind": "ot"}},
    "stochastic interpolant": {"path": {"kind": "interpolant"}},
    "Schrödinger bridge": {"path": {"kind": "schroedinger"}},
    "reflow": {},  # of the first
    "diffusion path (VP)": {"path": {"kind": "vp"}},
    "score matching (VP)": {"objective": {"kind": "score"}},
    "DDPM": {"objective": {"kind": "ddpm"}},
    "action matching": {"objective": {"kind": "action_matching"}},
    "maximum likelihood": {"objective": LIKELIHOOD},
    "planar flow": {"objective": NORMALISING, "network": {"transform": "planar", "layers": 16}},
    "RealNVP": {"objective": NORMALISING, "network": {"transform": "realnvp", "layers": 6}},
    "spline flow": {"objective": NORMALISING, "network": {"transform": "spline", "layers": 3}},
    "transport map (ICNN)": {"objective": {"kind": "icnn"}, "network": {"layers": 2}},
    "JKO": {"objective": {"kind": "jko", "blocks": 3}},
    "RNODE": {"objective": {**LIKELIHOOD, "kinetic": 0.05, "jacobian": 0.05}},
    "RNODE, adjoint": {"objective": {**LIKELIHOOD, "kinetic": 0.05, "jacobian": 0.05, "adjoint": True}},
    "OT-Flow": {"objective": {**LIKELIHOOD, "kinetic": 0.05, "hjb": 0.05}},
}
#: trained by walks, some fifty times as long: left out with --quick
SLOW = ("maximum likelihood", "JKO", "RNODE", "RNODE, adjoint", "OT-Flow")
COLUMNS = {
    "w2": "W2", "floor": "floor", "nll": "NLL", "entropy": "entropy", "energy": "energy", "straight": "straightness",
    "nfe": "NFE", "seconds": "seconds",
}  # fmt: skip


def domain(law: str, model: str, quick: bool) -> Table:
    """The domain whose options are a model."""
    groups = MODELS[model]
    third = (100 if quick else 3000) // 3
    objective = {"given": 0.0, "late": 1.0, "walk": 6, "block_steps": third, **groups.get("objective", {})}
    data: dict[str, Any] = {"source": law, "train": 4000 if quick else 20_000, "test": 1000 if quick else 4000}
    if law == "digits":
        kinds = ",".join(f"x{k + 1}:real" for k in range(64))
        data = {"source": str(digits() / "train.npy"), "held_out": str(digits() / "held_out.npy"), "columns": kinds}
    data["blur"] = 0.0
    network = {"width": 48 if quick else 96, "layers": 2 if quick else 3, "waves": 4, **groups.get("network", {})}
    return Table(data=data, **{**groups, "network": network, "objective": objective})


@cache
def digits() -> Path:
    """A folder with the shipped digits as rows of 64 grey levels from 0 to 17, dithered by one level: ``train.npy``
    (1,200) and ``held_out.npy`` (597). It is kept as long as the program runs."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(shipped_digits().levels.flatten(1).double().numpy())
    rows = rows + rng.random(rows.shape)
    folder = Path(FOLDER.name)
    np.save(folder / "train.npy", rows[:1200])
    np.save(folder / "held_out.npy", rows[1200:])
    return folder


def truth(law: str, count: int) -> tuple[Any, Any]:
    """As many rows that are not held out, and the log-density where it is known."""
    if law == "digits":
        return np.load(digits() / "train.npy")[:count], None
    return LAWS[law].draw(count, np.random.default_rng(99)), LAWS[law].log_density


def learned(made: Table, objective: Any, steps: int, seed: int) -> tuple[Flow, float]:
    """The flow of a domain, trained by an objective; and the seconds of processor time."""
    torch.manual_seed(seed)
    flow, rows = made.flow(), made.sets.train
    order, budget = torch.Generator().manual_seed(seed), Budget(steps)
    batches = torch.randint(len(rows), (steps, 256), generator=order)
    observed = torch.ones(256, rows.observed.shape[1], dtype=torch.bool)

    def loss(step: int) -> Tensor:
        torch.manual_seed(seed * 1_000_003 + step)
        x1 = {name: leaf[batches[step]] for name, leaf in rows.state.items()}
        return total(objective(flow, x1, Context.full(256, made.summary.encoding.sites, observed=observed)))

    optimizer = adam(flow, 3e-3, 0.99)
    train(flow, loss, optimizer, cosine(optimizer, budget, 0.02), budget, clip=10.0, decay=0.98)
    return flow, budget.spent


class Counted(torch.nn.Module):
    """A network that counts its evaluations."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.count = network, 0

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        self.count += 1
        return self.network(x, t, context)


@torch.no_grad()
def ways(flow: Flow, context: Context, steps: int) -> tuple[Tensor, float, float]:
    """Where noise ends, the kinetic energy of the ways and how far they are from straight lines."""
    x0 = flow.noise(context)
    if isinstance(flow.network, TransportMap):  # one jump, seen as a straight way
        places, steps = [x0, flow.transport(x0, context)], 1
    else:
        places = [x0, *flow.trajectory(x0, context, RK4(), steps)]
    found = torch.stack([p["numbers"].flatten(1).double() for p in places])  # type: ignore[index]
    velocities, whole = found.diff(dim=0) * steps, found[-1] - found[0]
    length = float(whole.square().sum(1).mean())
    energy = float(velocities.square().sum(2).mean())
    return found[-1], energy, float((velocities - whole).square().sum(2).mean()) / length


@torch.no_grad()
def evaluations(flow: Flow, context: Context) -> int:
    """How often an adaptive solver asks the network at tolerance 1e-5."""
    if isinstance(flow.network, TransportMap):
        return 1
    counted = Counted(flow.network)
    grid = torch.tensor([0.0, 0.999, 1.0] if flow.path.singular else [0.0, 1.0], dtype=torch.float64)
    walk = Flow(flow.path, flow.prior, counted)
    walk.transport(flow.noise(context), context, Adaptive(1e-5, 1e-5), grid)
    return counted.count


def judged(made: Table, flow: Flow, law: str, quick: bool) -> dict[str, float]:
    """The numbers of one row."""
    count, steps = (500, 12) if quick else (2000, 50)
    encoding, rows = made.summary.encoding, made.sets.held_out.values[:count]
    count = len(rows)
    torch.manual_seed(1)
    context = Context.full(count, encoding.sites, observed=torch.ones(count, len(encoding.order), dtype=torch.bool))
    end, energy, straight = ways(flow, context, steps)
    drawn = encoding.decode({"numbers": end[..., None]})
    other, density = truth(law, count)
    few = context.take(torch.arange(100))
    return {
        "w2": wasserstein(*map(torch.from_numpy, (drawn, rows))), "energy": energy, "straight": straight,
        "floor": wasserstein(*map(torch.from_numpy, (other, rows))),
        "nll": -float(log_likelihood(flow, encoding, rows, steps).mean()),
        "entropy": math.nan if density is None else -float(density(rows).mean()), "nfe": evaluations(flow, few),
    }  # fmt: skip


def measure(law: str, quick: bool, seed: int, only: list[str]) -> list[dict[str, Any]]:
    """All models on one law, or those that are named."""
    records, first = [], None
    for model in (m for m in MODELS if (m in only if only else not (quick and m in SLOW))):
        made = domain(law, model, quick)
        objective = made.objective
        if model == "reflow":
            choose = HeldCells(made.summary.encoding, 0.0)
            assert first is not None
            objective = FlowMatching(coupling=Inpainting(choose, partial=Reflow(first, Heun(), 8)))
        flow, seconds = learned(made, objective, 100 if quick else 3000, seed)
        first = flow if model == "flow matching" else first
        records.append({"law": law, "model": model, "seed": seed, **judged(made, flow, law, quick), "seconds": seconds})
        print(*records[-1].values(), flush=True)
    return records


def main() -> None:
    """Measure, print and perhaps publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps, one seed, no maximum likelihood")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/lineage.md")
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings a row; with --quick one")
    parser.add_argument("--out", type=Path, default=Path("runs/lineage"), help="where to write the .csv")
    parser.add_argument("--only", action="append", default=[], choices=MODELS, help="a model; may come several times")
    parser.add_argument("laws", nargs="*", metavar="LAW", help=f"of {', '.join(NAMES)}; default all")
    o = parser.parse_args()
    if unknown := sorted(set(o.laws) - set(NAMES)):
        parser.error(f"unknown {', '.join(unknown)}; there are {', '.join(NAMES)}")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    start, records = time.process_time(), []
    for law in o.laws or NAMES:
        for seed in range(1 if o.quick else o.seeds):
            records += measure(law, o.quick, seed, o.only)
            tables.save(records, o.out / "lineage.csv")
    table = tables.markdown(records, {"law": "law", "model": "model"}, COLUMNS)
    chosen = [word for model in o.only for word in ("--only", f'"{model}"')]
    words = " ".join(["python -m benchmarks.lineage", *(["--quick"] if o.quick else []), *chosen, *o.laws])
    text = f"`{words}`, {(time.process_time() - start) / 60:.1f} minutes of one core.\n\n{table}"
    print(text)
    if o.docs:
        tables.publish("lineage", text, DOCS)


if __name__ == "__main__":
    main()
