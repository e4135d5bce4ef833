"""Draw new samples from a trained run.

usage: fm-science sample RUN [n=10] [seed=0] [out=DIR] [option=value ...]

  n            how many samples; default 10, or what the domain says
  first        the number of the first one: several machines can share the work, each with another `first` and `out`
  seed         sample number i depends on (seed, i) alone, not on n, first or batch
  solver       euler, heun, ...; default: the domain's
  steps        steps of the solver; default: the domain's
  batch        how many samples are carried at once; bounds the memory; default: the domain's
  out          where to write; default RUN/samples. What an earlier drawing wrote there is replaced once all new samples
               are there. A drawing that was ended goes on where it was when the same is asked again
  trajectory   true: also write the way from noise to each sample
  device       auto, cpu, cuda, cuda:1
  trust        true: import code that the run names; see docs/security.md
  and the options of the domain's group `sample`, such as length=60-100 for proteins

examples:
  fm-science sample runs/first n=50 length=60-100 solver=heun steps=100 seed=1
  fm-science sample -m runs/first steps=10,30,100 out=runs/first/steps       a sweep, one folder a job
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fm_science import __version__, config, launch
from fm_science.commands.delivery import Delivery
from fm_science.commands.folders import log_errors
from fm_science.errors import OptionError, UserError
from fm_science.storage import writable

if TYPE_CHECKING:
    from fm_science.domain import Domain
    from fm_science.flow import Flow
    from fm_science.sampling import Drawing
    from fm_science.trained import Trained

FIRST, EVERY = 10.0, 60.0  # seconds before the first line of progress, and between lines
MOST = 1_000_000  # steps of a solver
PLAIN = {
    "n": None, "first": 0, "seed": 0, "solver": None, "steps": None, "batch": None, "trajectory": False,
    "device": "auto",
}  # fmt: skip


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Draw and write samples."""
    given = launch.words(args)
    if len(given.paths) != 1:
        raise UserError("sample takes one run folder: fm-science sample RUN [n=10] [key=value ...]")
    from fm_science.models import find_trained

    source = find_trained(given.paths[0])
    source.require_weights()
    base = {**PLAIN, "out": str(source.samples), **source.groups()["sample"]}
    launch.check(given, base)

    def job(tree: config.Tree, number: int | None) -> None:
        out = Path(tree["out"]) if number is None else Path(tree["out"]) / str(number)
        with log_errors(source.folder):
            write(source, {**tree, "out": str(out)}, out)

    launch.run("sample", given, base, job, place="out", origin=source.label)


def write(source: Trained, tree: config.Tree, out: Path) -> None:
    """Draw what the tree of settings asks for and write it, chunk by chunk."""
    plan = drawing(tree, source.groups()["sample"])
    if out == source.samples and out.is_symlink():
        raise UserError(f"{out} is a link, which is not followed: choose the folder with out=DIR")
    writable(out)
    flow = restore(source, tree)
    domain = flow.domain
    plan = sized(plan, tree, domain)
    fits(domain, flow, plan)
    if tree["trajectory"] and not domain.writes_trajectories:
        raise UserError(f"domain {domain.name!r} cannot write trajectories")
    from fm_science.sampling import draw

    kept = {key: value for key, value in tree.items() if key != "out"} | {"n": plan.n}
    how = {"version": __version__, "run": source.label, "domain": source.name, **kept}
    place = Delivery(out, {**how, "options": source.config, "weights": source.fingerprint})
    if place.made:
        print(f"resuming after {place.made} samples", flush=True)
    rest = replace(plan, first=plan.first + place.made, n=plan.n - place.made)
    with progress(plan.n, "sampling", place.made) as advance:
        for first, samples, frames in draw(domain, flow, rest, watch=tree["trajectory"]):
            files = domain.write(samples, place.folder, first=first)
            ways = domain.trajectory(frames, place.folder, first=first) if frames else []
            place.keep(len(samples), files, ways)
            advance(len(samples))
    place.finish(how)
    print(f"{plan.n} samples in {out}")


def restore(source: Trained, tree: Mapping[str, Any], trained: bool = True) -> Flow:
    """The flow of a run or model with the wanted options of the groups ``sample`` and, where there are any,
    ``metrics``; trained, or with the weights it began with."""
    wanted = {name: tree[name] for name in source.groups()["sample"] if name in tree}
    changes = {"sample": wanted, "metrics": tree.get("metrics", {})}
    return source.flow(source.domain(changes), trained)


def own(domain: Domain) -> Container[str]:
    """The names of the domain's own options of sampling."""
    from fm_science.plugins import find

    return {item.name for item in fields(find(domain.name).options()["sample"])}


def drawing(tree: Mapping[str, Any], own: Container[str] = ()) -> Drawing:
    """What to draw, checked. A solver or steps that are among the domain's ``own`` options are left to the domain.

    Raises OptionError at a value that does not fit.
    """
    from fm_science.sampling import Drawing, solver

    steps = None if tree["steps"] is None or "steps" in own else config.whole("steps", tree["steps"], 1, MOST)
    if isinstance(tree["steps"], int) and tree["steps"] > MOST:  # also where the option is the domain's own
        raise OptionError(f"steps={tree['steps']} are too many: expected at most {MOST:,}")
    if "trajectory" in tree:
        config.truth("trajectory", tree["trajectory"])
    return Drawing(
        n=1 if tree["n"] is None else config.whole("n", tree["n"], 1),
        seed=config.seed(tree["seed"]),
        batch=1 if tree["batch"] is None else config.whole("batch", tree["batch"], 1),
        solver=None if "solver" in own else solver(tree["solver"]),
        steps=steps,
        device=device(tree["device"]),
        first=config.whole("first", tree["first"]),
    )


def sized(plan: Drawing, tree: Mapping[str, Any], domain: Domain) -> Drawing:
    """The plan with as many samples, and as many at once, as the domain makes of what was asked for."""
    batch = domain.sample_batch if tree["batch"] is None else plan.batch
    return replace(plan, n=domain.count_samples(tree["n"]), batch=batch)


def fits(domain: Domain, flow: Flow, plan: Drawing) -> None:
    """Raises UserError when the solver and its steps do not fit what was trained."""
    from fm_science.solvers import uniform_grid

    solver = plan.solver or flow.sampler.solver
    path = (flow.sampler.path or flow.path).bind(domain.request(1), flow.prior)
    try:
        flow.check(solver, path)
        solver.check(path)
        path.check(uniform_grid(plan.steps or flow.sampler.steps))
    except (TypeError, ValueError) as error:
        raise UserError(f"solver={type(solver).__name__.lower()} does not fit this run: {error}") from error


def device(name: str) -> Any:
    """A torch device by name; ``auto`` is the GPU where there is one. Raises UserError if there is none."""
    import torch

    try:
        found = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"cannot use device={name}: {str(error).partition(chr(10))[0]}") from error
    return found


@contextmanager
def progress(total: int, label: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar with the time that is left, or a line a minute where there is no terminal; the value is called with how
    much was done."""
    from rich.progress import Progress

    terminal, begin = sys.stdout.isatty(), time.monotonic()
    made, line = done, begin + FIRST
    with Progress(transient=True, disable=not terminal) as shown:
        task = shown.add_task(label, total=total, completed=done)

        def advance(n: int) -> None:
            nonlocal made, line
            made, now = made + n, time.monotonic()
            shown.advance(task, n)
            if not terminal and now >= line:
                left = (now - begin) * (total - made) / (made - done)
                print(f"{label}: {made} of {total}, {left / 60:.1f} min left", flush=True)
                line = now + EVERY

        yield advance
