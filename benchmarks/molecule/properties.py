"""Do molecules have the properties that were asked for? ``python -m benchmarks.molecule properties RUN``.

    fm-science train domain=molecule preset=heavy data.limit=50000 objective.condition=gap run=runs/gap
    python -m benchmarks.molecule properties runs/gap --guidance 1,2,4

The judge is a small network of its own. It learns from molecules that the generator has never seen: the training
molecules that ``data.limit`` left out (Hoogeboom et al. 2022 halve the training part in the same way), or the
validation part where nothing was left out. Every sample is asked for the size and the properties of one molecule of
the test part; the error is the mean distance of what the judge sees in connected samples from what was asked. Rows to
read it by:

    judge on real          the judge on the test part: its own error, below which no difference can be seen
    real, size known       what the judge sees in real molecules of the right size, against the targets of others:
                           a generator of real molecules that follows the size alone
    real, shuffled         the same without the size: one that ignores its conditions

Connected samples are no fair draw of all sizes and targets, least of all where training was short. So beside each error
stands that of the same molecules against each other's targets: only what is below it is an effect of the condition.
Errors have the property's own unit and a bootstrap standard deviation. Writes ``properties.csv`` and, with
the targets against what the judge sees, ``properties.png`` into the run's folder ``report``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.molecule.runs import opened
from benchmarks.training import Budget, cosine, train
from fm_science import config, figures
from fm_science.commands import sample
from fm_science.commands.evaluate import Table, show, write_rows
from fm_science.data import StepBatches, collate
from fm_science.domain import group
from fm_science.errors import UserError
from fm_science.state import Context
from fm_science_domains.molecule.data import Data, Library, Molecules, load
from fm_science_domains.molecule.molecule import Molecule
from fm_science_domains.molecule.network import Kinds, Network, Reader
from fm_science_domains.molecule.network_dense import CROWD, Layer
from fm_science_domains.molecule.recipe import OneHot
from fm_science_domains.molecule.validity import judge as verdict

SIZE = {"width": 64, "edge": 24, "vectors": 8, "layers": 3, "heads": 4}
UNITS = {"mu": "D", "alpha": "bohr³", "homo": "eV", "lumo": "eV", "gap": "eV", "Cv": "cal/(mol K)"}
QUICK = {"minutes": 1.0, "n": 100}
REAL = 1000  # molecules of the test part that the rows of real molecules take, at least
Scale = Mapping[str, tuple[float, float]]


class Judge(nn.Module):
    """Properties of finished molecules: rounds of messages as in ``dense``, then a sum and a mean over atoms.

    Args:
        kinds: the classes of atoms, bonds and charges.
        scale: mean and standard deviation of each property over its training data, by name.
    """

    def __init__(self, kinds: Kinds, scale: Scale) -> None:
        super().__init__()
        o = group(Network, SIZE)
        self.scale = dict(scale)
        self.reader = Reader(o, kinds)
        self.first = nn.Linear(o.edge, o.vectors)
        self.layers = nn.ModuleList(Layer(o) for _ in range(o.layers))
        self.answer = nn.Sequential(nn.Linear(2 * o.width, o.width), nn.SiLU(), nn.Linear(o.width, len(scale)))

    def forward(self, state: dict[str, Tensor], context: Context) -> Tensor:
        """``(B, properties)``, in standard deviations from the mean."""
        s = self.reader(state, torch.ones(context.size), context)
        near = (s.pairs / (1 + s.length))[..., None]
        h, e, bumps = s.h * s.real, s.e, self.reader.radial(s.length)
        v = torch.einsum("bijc,bijx->bixc", self.first(nn.functional.silu(e)) * near, s.way) / CROWD
        for layer in self.layers:
            h, v, e, _ = layer(h, v, e, s.way, s.length, bumps, s)
        total = (h * s.real).sum(1)
        return self.answer(torch.cat([total / 10, total / s.real.sum(1).clamp_min(1)], -1))


@dataclass(frozen=True)
class Bench:
    """How molecules become batches: the space and the classes of the run, and the properties that condition it."""

    space: Any
    counts: Mapping[str, int]
    names: tuple[str, ...]

    def points(self, data: Molecules) -> OneHot:
        """A part of the data as points of the space."""
        return OneHot(data, dict(self.counts), self.names)

    def batches(self, data: Molecules, molecules: Sequence[Molecule], size: int = 250) -> Iterator[Any]:
        """Molecules in their order as padded batches ``(state, context)``."""
        corners = {name: torch.eye(count) for name, count in self.counts.items()}
        for k in range(0, len(molecules), size):
            encoded = [data.vocabulary.encode(m) for m in molecules[k : k + size]]
            points = [{"positions": x["positions"], **{n: c[x[n]] for n, c in corners.items()}} for x in encoded]
            yield collate(self.space, [(x, {}) for x in points])

    @torch.no_grad()
    def seen(self, judge: Judge, data: Molecules, molecules: Sequence[Molecule]) -> np.ndarray:
        """``(M, properties)``, what the judge sees in molecules, in the properties' own units."""
        found = torch.cat([judge(*batch) for batch in self.batches(data, molecules)]).double().numpy()
        mean, std = np.array(list(judge.scale.values())).T
        return found * std + mean

    def known(self, molecules: Sequence[Molecule]) -> np.ndarray:
        """``(M, properties)``, what the data say of real molecules."""
        return np.array([[m.properties[name] for name in self.names] for m in molecules])


def unseen(options: Data) -> tuple[Library, Molecules]:
    """All molecules of the run's source, and those that a generator with these options has not been trained on."""
    full, limited = load(replace(options, limit=0)), load(options)
    pack = full.train.pack
    rest = pack.take(~np.isin(pack.names, limited.train.pack.names))
    return full, Molecules(rest, full.vocabulary) if len(rest) else full.validation


def trained(bench: Bench, data: Molecules, minutes: float, seed: int = 0) -> Judge:
    """A judge after so many minutes of processor time: AdamW on absolute errors, in standard deviations."""
    torch.manual_seed(seed)
    known = {name: data.pack.properties[name] for name in bench.names}
    scale = {name: (float(np.nanmean(v)), float(np.nanstd(v))) for name, v in known.items()}
    judge, budget = Judge(Kinds.of(bench.counts, 1.0, False, {}), scale), Budget(seconds=60 * minutes)
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    mean, std = torch.tensor(list(scale.values())).T
    points, rows = bench.points(data), iter(StepBatches(data.sizes, 128, seed=seed))

    def loss(step: int) -> Tensor:
        x, context = collate(bench.space, [points[i] for i in next(rows)])
        wanted = (torch.stack([context.cond[name] for name in bench.names], -1) - mean) / std
        return (judge(x, context) - wanted).abs().nanmean()

    steps = train(judge, loss, optimizer, cosine(optimizer, budget, warm_up=50), budget, clip=1.0)
    print(f"judge: {steps} steps in {minutes:g} minutes, on {len(data):,} molecules that the generator never saw")
    return judge


def drawn(run: Path, targets: Sequence[Molecule], names: tuple[str, ...], guidance: float, o: Any) -> list[Molecule]:
    """Molecules of the run, each asked for the size and the properties of one real molecule."""
    domain, flow, _ = opened(run, steps=o.steps, guidance=guidance, target="")
    flow.eval()
    found: list[Molecule] = []
    for k in range(0, len(targets), o.batch):
        some = targets[k : k + o.batch]
        sizes = torch.tensor([len(m) for m in some])
        cond = {name: torch.tensor([m.properties[name] for m in some]) for name in names}
        context = Context(torch.arange(int(sizes.max())) < sizes[:, None], cond)
        found += domain.decode(flow.sample(context, seed=o.seed * 1_000_003 + k), context)
    return found


def error(found: np.ndarray, wanted: np.ndarray) -> list[tuple[float, float]]:
    """The mean absolute error of each property ``(M, properties)``, with its bootstrap standard deviation."""
    away = np.abs(found - wanted)
    away = away[np.isfinite(away).all(1)]
    draws = np.random.default_rng(0).integers(max(1, len(away)), size=(200, len(away)))
    if not len(away):
        return [(math.nan, math.nan)] * found.shape[1]
    return [(float(v.mean()), float(v[draws].mean(1).std())) for v in away.T]


def others_error(found: np.ndarray, wanted: np.ndarray) -> list[float]:
    """The mean absolute error of each property ``(M, properties)`` against the targets of all others: what these
    molecules would reach if the condition had no effect."""
    fine = np.isfinite(found + wanted).all(1)
    apart = ~np.eye(int(fine.sum()), dtype=bool)
    away = [np.abs(x[:, None] - y)[apart] for x, y in zip(found[fine].T, wanted[fine].T, strict=True)]
    return [float(v.mean()) if len(v) else math.nan for v in away]


def shuffled(rows: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """The rows in random order among those of equal kind ``(M,)``."""
    random, out = np.random.default_rng(0), rows.copy()
    for kind in np.unique(kinds):
        mine = np.flatnonzero(kinds == kind)
        out[mine] = rows[random.permutation(mine)]
    return out


def measure(run: Path, o: argparse.Namespace) -> tuple[Table, dict[str, Any], tuple[str, ...]]:
    """The table, by name ``(wanted, seen)`` of real molecules and of each guidance, and the properties."""
    saved = config.read(run)
    names = tuple(filter(None, sample.complete(saved)["objective"]["condition"].split("+")))
    if not names:
        raise UserError(f"{run} was trained without properties; train with objective.condition=gap")
    domain, _ = sample.load(run, saved, {}, trained=False)
    counts = {k: part.space.classes for k, part in domain.path.parts.items() if k != "positions"}  # type: ignore[attr-defined]
    bench = Bench(domain.path.space, counts, names)
    full, rest = unseen(group(Data, sample.complete(saved)["data"]))
    judge = trained(bench, rest, o.minutes, o.seed)
    real = full.molecules("test", max(REAL, o.n), o.seed)
    known, seen = bench.known(real), bench.seen(judge, rest, real)
    sizes = np.array([len(m) for m in real])
    shown = {"judge on real": (known, seen), "real, size known": (shuffled(known, sizes), seen),
             "real, shuffled": (shuffled(known, 0 * sizes), seen)}  # fmt: skip
    table = {name: row(names, 1.0, *pair) for name, pair in shown.items()}
    for guidance in map(float, o.guidance.split(",")):
        made, name = drawn(run, real[: o.n], names, guidance, o), f"samples, guidance {guidance:g}"
        good = np.array([verdict(m).connected for m in made])
        whole = [m for m, fine in zip(made, good, strict=True) if fine]
        shown[name] = (known[: o.n][good], bench.seen(judge, rest, whole) if whole else known[:0])
        table[name] = row(names, float(good.mean()), *shown[name])
    return table, {k: v for k, v in shown.items() if not k.startswith("real")}, names


def row(names: Sequence[str], connected: float, wanted: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """A row of the table, from targets and what the judge sees ``(M, properties)``: each property's error, its standard
    deviation, and the error against the targets of others."""
    numbers = {"connected": connected}
    for name, (mean, std), other in zip(names, error(found, wanted), others_error(found, wanted), strict=True):
        unit = UNITS.get(name, "own unit")
        numbers |= {f"{name} ({unit})": mean, f"{name} ±": std, f"{name} of others": other}
    return numbers


def scatter(shown: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Targets against what the judge sees, a panel a row of the table and property."""
    canvas = figures.figure(2.9 * len(shown), 2.9 * len(names))
    axes = canvas.subplots(len(names), len(shown), squeeze=False)
    for k, name in enumerate(names):
        values = next(iter(shown.values()))[0][:, k]
        low, high = float(np.nanquantile(values, 0.002)), float(np.nanquantile(values, 0.998))
        for ax, (row, (wanted, seen)) in zip(axes[k], shown.items(), strict=True):
            ax.plot([low, high], [low, high], color=figures.QUIET, lw=0.8)
            ax.plot(wanted[:, k], seen[:, k], "o", ms=2, alpha=0.5, color=figures.COLOURS[0], mew=0)
            unit = f" ({UNITS[name]})" if name in UNITS else ""
            ax.set(xlim=(low, high), ylim=(low, high), xlabel=f"target {name}{unit}", title=row)
        axes[k][0].set_ylabel(f"{name} seen by the judge")
    return canvas


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("run", type=Path, help="the folder of a run trained with objective.condition")
    add("--guidance", default="1,2", help="values of sample.guidance")
    add("--n", type=int, default=500, help="samples of each guidance")
    add("--steps", type=int, default=100, help="steps of the sampler")
    add("--batch", type=int, default=100, help="molecules carried at once")
    add("--minutes", type=float, default=3.0, help="processor time of the judge's training")
    add("--seed", type=int, default=0)


def run(o: argparse.Namespace) -> None:
    """Print the table; write it and the picture."""
    table, shown, names = measure(o.run, o)
    out = o.run / "report"
    out.mkdir(exist_ok=True)
    show(table)
    write_rows([{"row": name, **numbers} for name, numbers in table.items()], out / "properties.csv")
    print(figures.draw({"properties": lambda: scatter(shown, names)}, out)[0])
