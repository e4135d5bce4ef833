"""How good one, two and four steps are: flow maps beside rectified flow, reflow and distillation.

    python -m benchmarks.few_step {plane|sphere|rotations|digits} [--quick] [--seeds K ...] [--out DIR]

All rows have the same network, batches, optimiser and number of training steps; reflow and distillation start from the
first row as their teacher, so they have had twice as many steps in all, and the pairs that the teacher made. Means and
standard deviations over seeds. W2 is the Wasserstein-2 distance of 600 samples to 600 data, whose floor is that of
two sets of data; the energy distance is unbiased. Prints a table, and writes it with a figure. Seeds that were run into
the same folder with the same budget are kept, so that they may be run one by one.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.few_step_worlds import WORLDS, Perceptron, World, measured
from fm_science import figures
from fm_science.couplings import Paired, Reflow
from fm_science.flow import Flow
from fm_science.objectives import FlowMapMatching, FlowMatching, Lagrangian, MeanFlow, Objective, Semigroup
from fm_science.solvers import Euler, FlowMap, Heun, Solver
from fm_science.state import Context

STEPS = (1, 2, 4)
FLOOR, WALK = "two sets of data (floor)", "1-rectified flow, Heun, 50 evaluations"


@dataclass(frozen=True)
class Budget:
    """How much is done: training steps, data a batch, samples that are measured, pairs a teacher makes."""

    steps: int = 2000
    batch: int = 256
    samples: int = 4000
    pairs: int = 10_000


@dataclass(frozen=True)
class Method:
    """A way to few steps: what is minimised, how it is walked, whether it learns from a teacher's pairs, and with how
    many steps it can be sampled."""

    objective: Objective
    solver: Solver
    taught: bool = False
    steps: tuple[int, ...] = STEPS


def start_only(n: int) -> Tensor:
    """All times are 0: the velocity there is the whole way, which is distillation to one step."""
    return torch.zeros(n)


METHODS: dict[str, Method] = {
    "1-rectified flow, Euler": Method(FlowMatching(), Euler()),
    "2-rectified flow (reflow), Euler": Method(FlowMatching(Paired()), Euler(), taught=True),
    "distillation to one step": Method(FlowMatching(Paired(), start_only), Euler(), taught=True, steps=(1,)),
    "flow map, Lagrangian": Method(FlowMapMatching(law=Lagrangian(), share=0.5), FlowMap()),
    "flow map, mean flow": Method(FlowMapMatching(law=MeanFlow(), share=0.5), FlowMap()),
    "flow map, semigroup (shortcut)": Method(FlowMapMatching(law=Semigroup(), share=0.5), FlowMap()),
}


def train(world: World, objective: Objective, budget: Budget, seed: int, pairs: Any = None) -> Flow:
    """A flow trained from scratch, on fresh data or on ``pairs`` (x0, x1); Adam with a cosine decay."""
    torch.manual_seed(seed)
    flow = Flow(world.path, world.prior, Perceptron(world.space, world.width))
    optimizer = torch.optim.Adam(flow.parameters(), 2e-3, betas=(0.9, 0.99))
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * k / budget.steps))
    )
    context = Context.full(budget.batch)
    for _ in range(budget.steps):
        if pairs is None:
            x0, x1 = None, world.data(budget.batch)
        else:
            rows = torch.randint(len(pairs[0]), (budget.batch,))
            x0, x1 = (x[rows] for x in pairs)
        losses = objective(flow, x1, context, x0)
        optimizer.zero_grad()
        torch.stack([loss.mean() for loss in losses.values()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        decay.step()
    return flow.eval()


def compare(world: World, budget: Budget, seed: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The distances of every method by its number of steps, and samples in one step for the figure."""
    context, found, shown = Context.full(budget.samples), {}, {}
    torch.manual_seed(seed)
    found[FLOOR] = {0: measured(world, world.data(budget.samples), seed)}
    pairs = None
    for name, method in METHODS.items():
        flow = train(world, method.objective, budget, seed, pairs if method.taught else None)
        drawn = {n: flow.sample(context, method.solver, n, seed=seed) for n in method.steps}
        found[name] = {n: measured(world, x, seed) for n, x in drawn.items()}
        shown[name] = drawn[1][:1500]
        if pairs is None:  # the first row teaches
            walked = flow.sample(context, Heun(), 25, seed=seed)
            found[WALK], shown[WALK] = {50: measured(world, walked, seed)}, walked[:1500]
            pairs = taught(flow, world, budget)
        print(f"seed {seed}  {name}: W2 in one step {found[name][1]['w2']:.3f}", flush=True)
    return found, shown


def taught(flow: Flow, world: World, budget: Budget) -> tuple[Tensor, Tensor]:
    """Noise and where the flow carries it."""
    context = Context.full(budget.pairs)
    x0 = flow.noise(context)
    ends, x1, _ = Reflow(flow, Heun(), 25).pair(world.space.bind(context), x0, x0, context)
    return ends, x1


def table(world: World, runs: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    unit = f" ({world.unit})" if world.unit else ""
    columns = [f"W2{unit}, {n} step{'s' if n > 1 else ''}" for n in STEPS]
    columns += [f"{world.second}, {n} step{'s' if n > 1 else ''}" for n in STEPS[:2]]
    lines = [f"| {world.title} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name in (FLOOR, WALK, *METHODS):
        cells = [cell(runs, name, n, "w2", 3) for n in STEPS] + [cell(runs, name, n, "second", 2) for n in STEPS[:2]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(runs: list[dict[str, Any]], name: str, steps: int, key: str, places: int) -> str:
    """Mean and standard deviation over seeds; rows that have but one number show it once."""
    only = next(iter(runs[0][name]))
    if len(runs[0][name]) == 1 and only not in STEPS:
        if steps != 1:
            return ""
        steps = only
    if steps not in runs[0][name]:
        return "-"
    values = [run[name][steps][key] for run in runs]
    spread = f" ± {statistics.stdev(values):.{places}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{places}f}{spread}"


def picture(world: World, shown: Mapping[str, Tensor]) -> Any:
    """Samples in one step beside data."""
    made = figures.figure(13, 6)
    axes = made.subplots(2, 4).flatten()
    panels = {"data": world.data(1500), **shown}
    for axis, (name, x) in zip(axes, panels.items(), strict=False):
        if world.flat is None:
            side = math.isqrt(x[0].numel())
            tiles = torch.nn.functional.pad(x[:64].reshape(8, 8, side, side).clamp(-1, 1), (1, 1, 1, 1), value=-1.0)
            axis.imshow(tiles.transpose(1, 2).reshape(8 * (side + 2), -1), cmap="gray_r")
        else:
            limits = torch.cat([world.flat(y) for y in panels.values()])
            colour = figures.COLOURS[0 if name.startswith("flow map") else 1]
            axis.scatter(*world.flat(x).T, s=1.5, linewidths=0, color=colour)
            axis.set(xlim=limits[:, 0].aminmax(), ylim=limits[:, 1].aminmax())
        axis.set(title=name.replace(", Euler", ""), xticks=[], yticks=[])
        axis.title.set_fontsize(8.5)
    return made


def curves(world: World, runs: list[dict[str, Any]]) -> Any:
    """W2 against the number of steps, with the floor."""
    made = figures.figure(6.5, 4)
    axis = made.subplots()
    colours = [figures.COLOURS[k] for k in (1, 2, 5, 0, 3, 4)]
    for (name, method), colour in zip(METHODS.items(), colours, strict=True):
        means = [statistics.mean(run[name][n]["w2"] for run in runs) for n in method.steps]
        axis.plot(method.steps, means, marker="o", label=name, color=colour)
    floor = statistics.mean(run[FLOOR][0]["w2"] for run in runs)
    axis.axhline(floor, color=figures.QUIET, linestyle="--", label="floor")
    axis.set(xscale="log", yscale="log", xlabel="steps, one evaluation each", ylabel=f"W2 {world.unit}")
    axis.set(title=world.title, xticks=STEPS, xticklabels=STEPS)
    axis.legend(fontsize=7.5)
    return made


def earlier(file: Path, budget: Budget) -> dict[int, Any]:
    """What was found for other seeds with the same budget, by seed."""
    if not file.is_file():
        return {}
    kept = json.loads(file.read_text())
    if kept["budget"] != asdict(budget):
        return {}
    plain = {int(seed): run for seed, run in kept["seeds"].items()}
    return {k: {name: {int(n): v for n, v in row.items()} for name, row in run.items()} for k, run in plain.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("world", choices=sorted(WORLDS))
    parser.add_argument("--quick", action="store_true", help="one seed, 300 steps, fewer samples")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, metavar="K", help="default 0 1 2")
    parser.add_argument("--out", type=Path, default=Path("runs/few_step"), help="folder of the table and figures")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    budget = Budget(steps=300, samples=2000, pairs=4000) if given.quick else Budget()
    world, file = WORLDS[given.world](), given.out / f"{given.world}.json"
    given.out.mkdir(parents=True, exist_ok=True)
    runs, shown = earlier(file, budget), {}
    for seed in given.seeds or ([0] if given.quick else [0, 1, 2]):
        runs[seed], shown = compare(world, budget, seed)
        file.write_text(json.dumps({"budget": asdict(budget), "seeds": runs}, indent=1))
    found = [runs[seed] for seed in sorted(runs)]
    make: dict[str, Callable[[], Any]] = {
        f"few_step_{given.world}": lambda: picture(world, shown),
        f"few_step_{given.world}_steps": lambda: curves(world, found),
    }
    figures.draw(make, given.out)
    text = table(world, found)
    (given.out / f"{given.world}.md").write_text(text + "\n")
    print(f"\n{budget.steps} training steps of {budget.batch}, {len(found)} seeds\n\n{text}")


if __name__ == "__main__":
    main()
