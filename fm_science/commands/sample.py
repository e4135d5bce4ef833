"""Draw new samples from a trained run.

usage: fm-science sample RUN [n=10] [seed=0] [out=DIR] [option=value ...]

  n            how many samples; default 10, or the domain's
  first        the number of the first one: several machines can share the work, each with its own `first` and `out`
  seed         sample number i depends on (seed, i) alone, not on n, first or batch
  solver       euler, heun, ...; default: the domain's
  steps        steps of the solver; default: the domain's
  batch        how many samples are generated together; bounds the memory; default: the domain's
  out          where to write; default RUN/samples. Samples of an earlier command are replaced once all new samples are
               complete. An interrupted command continues where it was when it is repeated
  from         file or folder whose objects the samples are variants of, in turn; several as [a.pdb,b.pdb]
  noise        how far variants are from them: 0.3 moves back to t = 0.7 and samples from there; 1 keeps nothing.
               Domains with their own option noise take from_time=0.7
  trajectory   true: also write the trajectory from noise to each sample
  device       auto, cpu, cuda, cuda:1
  trust        true: import code that the run names; see docs/security.md
  Processes that torchrun starts together share the work; see docs/many_processes.md
  and the options of the domain's group `sample`, such as length=60-100 for proteins

examples:
  fm-science sample runs/first n=50 length=60-100 solver=heun steps=100 seed=1
  fm-science sample protein from=fold.pdb noise=0.3 n=8                      variants of a structure
  fm-science sample -m runs/first steps=10,30,100 out=runs/first/steps       a sweep, one folder per job
"""

from __future__ import annotations

import os
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
    from fm_science.sampling import Drawing, Variants
    from fm_science.trained import Trained

FIRST, EVERY = 10.0, 60.0  # seconds before the first line of progress, and between lines
MOST = 1_000_000  # steps of a solver
MANY = 10**9  # samples of one command
PLAIN = {
    "n": None, "first": 0, "seed": 0, "solver": None, "steps": None, "batch": None, "trajectory": False,
    "device": "auto",
}  # fmt: skip
VARIANTS = {"from": None, "noise": None, "from_time": None}
NOISE = 0.3  # of variants by default


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
    base = {**PLAIN, **VARIANTS, "out": str(source.samples), **source.groups().get("sample", {})}
    launch.check(given, base)

    def job(tree: config.Tree, number: int | None) -> None:
        out = Path(str(tree["out"])) if number is None else Path(str(tree["out"])) / str(number)
        from fm_science.sampling import meeting

        with log_errors(source.folder), meeting():
            write(source, {**tree, "out": str(out)}, out)

    launch.run("sample", given, base, job, place="out", origin=source.label)


def write(source: Trained, tree: config.Tree, out: Path) -> None:
    """Draw the samples of the tree of settings and write them, chunk by chunk."""
    plan = drawing(tree, source.groups().get("sample", {}))
    if out == source.samples and out.is_symlink():
        raise UserError(f"{out} is a link, which is not followed: choose the folder with out=DIR")
    writable(out)
    flow = restore(source, tree)
    domain = flow.domain
    plan = replace(sized(plan, tree, domain), variants=variants(tree, source.groups()["sample"], domain))
    fits(domain, flow, plan)
    if tree["trajectory"] and not domain.writes_trajectories:
        raise UserError(f"domain {domain.name!r} cannot write trajectories")
    from fm_science.sampling import draw_shared, from_first

    kept = {key: value for key, value in tree.items() if key != "out"} | {"n": plan.n}
    how = {"version": __version__, "run": source.label, "domain": source.name, **kept}
    request = {**how, "options": source.config, "weights": source.fingerprint}
    place = Delivery(out, request) if launch.rank() == 0 else None  # the first process writes the samples of all
    made = from_first(place.made if place is not None else 0)
    if made and place is not None:
        print(f"resuming after {made} samples", flush=True)
    rest = replace(plan, first=plan.first + made, n=plan.n - made)
    drawn = draw_shared(domain, flow, rest, watch=tree["trajectory"])
    if place is None:
        any(drawn)  # draws its share and sends it to the first process
        return
    with progress(plan.n, "sampling", made) as advance:
        for first, samples, frames in drawn:
            files = domain.write(samples, place.folder, first=first)
            ways = domain.trajectory(frames, place.folder, first=first) if frames else []
            place.keep(len(samples), files, ways)
            advance(len(samples))
    place.finish(how)
    print(f"{plan.n} samples in {out}")


def restore(source: Trained, tree: Mapping[str, Any], trained: bool = True) -> Flow:
    """The flow of a run or model with the wanted options of the groups ``sample`` and, if it has them, ``metrics``;
    trained, or with its initial weights."""
    wanted = {name: tree[name] for name in source.groups().get("sample", {}) if name in tree}
    changes = {"sample": wanted, "metrics": tree.get("metrics", {})}
    return source.flow(source.domain(changes), trained)


def own(domain: Domain) -> Container[str]:
    """The names of the domain's own options of sampling."""
    from fm_science.plugins import find

    kind = find(domain.name).options().get("sample")
    return {item.name for item in fields(kind)} if kind else {}


def drawing(tree: Mapping[str, Any], own: Container[str] = ()) -> Drawing:
    """What to draw, checked. A solver or steps that are among the domain's ``own`` options are handled by the domain.

    Raises OptionError for a value that is not valid.
    """
    from fm_science.sampling import Drawing, solver

    steps = None if tree["steps"] is None or "steps" in own else config.whole("steps", tree["steps"], 1, MOST)
    if isinstance(tree["steps"], int) and tree["steps"] > MOST:  # also if the option is the domain's own
        raise OptionError(f"steps={tree['steps']} are too many: expected at most {MOST:,}")
    if "trajectory" in tree:
        config.truth("trajectory", tree["trajectory"])
    return Drawing(
        n=1 if tree["n"] is None else config.whole("n", tree["n"], 1, MANY),
        seed=config.seed(tree["seed"]),
        batch=1 if tree["batch"] is None else config.whole("batch", tree["batch"], 1),
        solver=None if "solver" in own else solver(tree["solver"]),
        steps=steps,
        device=device(tree["device"]),
        first=config.whole("first", tree["first"]),
    )


def variants(tree: Mapping[str, Any], own: Container[str], domain: Domain) -> Variants | None:
    """The data of which samples are variants, and the time to which they are moved back; None if no file is given. A
    ``noise`` among the domain's ``own`` options is handled by the domain.

    Raises:
        OptionError: for a noise or a time out of range, both, or either without a file.
        UserError: for a file that cannot be read, or objects that the domain cannot encode.
    """
    from fm_science.sampling import Variants

    noise, time = None if "noise" in own else tree["noise"], tree["from_time"]
    if tree["from"] is None:
        if noise is not None or time is not None:
            raise OptionError("noise and from_time say how far variants are from a file: give from=FILE as well")
        return None
    if noise is not None and time is not None:
        raise OptionError(f"noise={noise} from_time={time}: give one of them; from_time is 1 - noise")
    if time is not None and not 0 <= config.number("from_time", time) < 1:
        raise OptionError(f"from_time={time}: expected a time of at least 0 and less than 1")
    noise = NOISE if noise is None else noise
    if not 0 < config.number("noise", noise) <= 1:
        raise OptionError(f"noise={noise}: expected a share above 0 and at most 1")
    files = [tree["from"]] if isinstance(tree["from"], str) else list(tree["from"])
    data = [domain.encode([found]) for found in domain.read(files)]
    return Variants(data, 1 - noise if time is None else time)


def sized(plan: Drawing, tree: Mapping[str, Any], domain: Domain) -> Drawing:
    """The plan with the numbers of samples, in total and together, that the domain derives from the request."""
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
    """A torch device by name; ``auto`` is the GPU if there is one. Raises UserError if there is none."""
    import torch

    try:
        found = torch.device(_nearest_device() if name == "auto" else name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise UserError(f"cannot use device={name}: {str(error).partition(chr(10))[0]}") from error
    return found


def _nearest_device() -> str:
    """The GPU of this process among those that were started together, else the CPU."""
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{int(os.environ.get('LOCAL_RANK') or 0) % count}" if count else "cpu"


@contextmanager
def progress(total: int | None, label: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar with the time that is left, or a line a minute where there is no terminal; the value is called with how
    much was done. ``total=None``: it is not known how much there is."""
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
                pace = (now - begin) / (made - done)
                left = "" if total is None else f" of {total}, {pace * (total - made) / 60:.1f} min left"
                print(f"{label}: {made}{left}", flush=True)
                line = now + EVERY

        yield advance
