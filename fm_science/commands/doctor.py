"""Check this installation: versions, devices, speed, exact resume, the laws of the spaces, and one domain.

usage: fm-science doctor                                         the installation
       fm-science doctor domain=NAME [preset=NAME] [group.option=value ...]     and one domain, with these options

Each line is a check: pass or FAIL, a number, and after a failure what to do. The domain is built as for training and
checked by the laws of domains (fm_science.testing.check_domain): shapes, symmetry, effects of padding, weights without
gradient, the prior, seeds, files that are written and read back. Takes about a minute. The exit code is 0 if all checks
pass, 1 if one fails, 2 for a mistyped argument.

examples:
  fm-science doctor
  fm-science doctor domain=protein
  fm-science doctor domain=table data.source=my.csv
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fm_science import __version__, config, launch
from fm_science.commands.train import quick
from fm_science.errors import CheckError, UserError
from fm_science.plugins import Plugin, domains, find

if TYPE_CHECKING:
    from fm_science.domain import Domain

SLOWER = 1.5  #: the largest ratio of the time of a small step to plain PyTorch; on a quiet machine it is 1.0
IMPORT = 20.0  #: seconds that the code of a domain may take to import


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Args:
        name: what was checked.
        passed: whether it passed.
        figure: what was measured.
        hint: what to do if it failed.
    """

    name: str
    passed: bool
    figure: str
    hint: str = ""

    def __str__(self) -> str:
        line = f"{self.name:<28}{'pass' if self.passed else 'FAIL':<6}{self.figure}"
        return line if self.passed or not self.hint else f"{line}\n{'':<34}-> {self.hint}"


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Run all checks and print the table. Raises CheckError if one fails."""
    given = launch.words(args)
    if given.paths or given.sweep:
        raise UserError("doctor takes domain=NAME and options of that domain: fm-science doctor domain=NAME")
    named = given.values("domain")
    if not named:
        launch.check(given, {"domain": None})
        return printed(machine())
    plugin = find(named[-1])
    given = quick(given, [plugin])
    base = {"domain": plugin.name, "preset": None, **config.defaults(config.engine())}
    tree = config.defaults(plugin.options())
    launch.check(given, {**base, **tree})
    presets = {name: config.preset(plugin, name, {**base, **tree}) for name in given.values("preset")}

    def job(tree: config.Tree, _: int | None) -> None:
        printed(machine(), of_domain(plugin, config.validate(plugin.options(), tree)))

    return launch.run("doctor", given, base, job, {"domain": {plugin.name: tree}, "preset": presets})


def printed(*parts: Iterator[Check]) -> None:
    """Print each check as soon as it is done. Raises CheckError if some failed."""
    failed = total = 0
    for part in parts:
        for check in part:
            print(check, flush=True)
            total, failed = total + 1, failed + (not check.passed)
    if failed:
        raise CheckError(f"{failed} of {total} checks failed")
    print(f"all {total} checks passed")


def machine() -> Iterator[Check]:
    """The checks of the installation."""
    yield versions()
    yield from entry_points()
    yield device()
    yield threads()
    yield _timed("step against plain PyTorch", speed, "other programs use the processor: stop them and try again")
    yield _timed("exact resume", resume, "report it, with this table and the seed")
    yield from spaces()


def _timed(name: str, measure: Callable[[], tuple[bool, str]], hint: str) -> Check:
    """A check that may itself raise."""
    try:
        passed, figure = measure()
    except Exception as error:  # any error is a failed check
        return Check(name, False, f"{type(error).__name__}: {' '.join(str(error).split())}", hint)
    return Check(name, passed, figure, hint)


def versions() -> Check:
    """Python, and that every required package is installed in a suitable version."""
    from packaging.requirements import Requirement

    lacking, seen = [], []
    for text in distribution("fm-science").requires or []:
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(need.name)
        except PackageNotFoundError:
            lacking.append(str(need))
            continue
        seen.append(f"{need.name} {found}")
        if not need.specifier.contains(found, prereleases=True):
            lacking.append(str(need))
    figure = f"fm-science {__version__}, Python {platform.python_version()}, {', '.join(seen[:3])}"
    missing = " ".join(f"'{need}'" for need in lacking)
    return Check("versions", not lacking, figure if not lacking else f"lacking {missing}", f"pip install {missing}")


def entry_points() -> Iterator[Check]:
    """That installed domains can be imported; a missing extra is not a failure."""
    known = domains()
    yield Check("domains", bool(known), ", ".join(known) or "none", "install fm-science itself: pip install -e .")


def device() -> Check:
    """That the device gives the same results as the CPU."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        return Check("device", True, f"no GPU; processor with {os.cpu_count()} cores")
    names = ", ".join(sorted({torch.cuda.get_device_name(index) for index in range(count)}))
    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        error = float(((a.cuda() @ a.cuda()).cpu() - a @ a).abs().max())
    except RuntimeError as problem:
        return Check("device", False, f"{names}: {' '.join(str(problem).split())[:100]}", "trainer.accelerator=cpu")
    hint = "the driver or the device is broken; trainer.accelerator=cpu"
    return Check("device", error < 1e-9, f"{count} x {names}; a product is off by {error:.1g}", hint)


def threads() -> Check:
    """That there are no more threads than cores for this process."""
    import torch

    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else (os.cpu_count() or 1)
    used = torch.get_num_threads()
    hint = f"export OMP_NUM_THREADS={cores}: more threads than cores make every step slower"
    return Check("threads", used <= cores, f"{used} on {cores} cores for this process", hint)


def speed() -> tuple[bool, str]:
    """A training step of a small network, compared with the same step written by hand; the shorter halves of both."""
    from fm_science.commands.trial import by_engine, by_hand

    ours, bare = by_engine(), by_hand()
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(30):  # alternating, so that both see the same load
        for name, step in (("ours", ours), ("bare", bare)):
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    least = {name: sorted(found)[len(found) // 4] for name, found in times.items()}
    ratio = least["ours"] / least["bare"]
    return ratio <= SLOWER, f"{1e3 * least['ours']:.2f} ms, {ratio:.2f} times plain PyTorch (at most {SLOWER})"


def resume() -> tuple[bool, str]:
    """A run that was interrupted halfway and resumed has the weights of one that was not, bit for bit."""
    from fm_science.commands.trial import trained

    with tempfile.TemporaryDirectory() as folder:
        whole = trained(Path(folder, "whole"), 4)
        trained(Path(folder, "parts"), 2)
        parts = trained(Path(folder, "parts"), 4, resume=True)
    off = max(float((whole[name] - parts[name]).abs().max()) for name in whole)
    return off == 0, "bit for bit" if off == 0 else f"weights differ by {off:.2g}"


def spaces() -> Iterator[Check]:
    """The laws of each space, on small batches and with one seed."""
    from fm_science import spaces as s
    from fm_science.testing import check_space

    some = [s.Euclidean(2), s.Centered(), s.Functions(1), s.Torus(2), s.Sphere(2), s.Hyperbolic(2), s.SO3(), s.SPD(2),
            s.Categorical(3)]  # fmt: skip
    for space in some:
        laws = lambda space=space: check_space(space, (1, 2), seeds=(0,), densities=False)  # noqa: E731
        yield from _laws(f"laws of {type(space).__name__}", laws, "report it, with the versions above")


def _laws(name: str, check: Callable[[], Mapping[str, float]], hint: str) -> Iterator[Check]:
    """One line if all laws hold, else one for each that fails."""
    start = time.perf_counter()
    try:
        found = check()
    except AssertionError as error:
        for line in str(error).splitlines()[1:]:
            law, _, detail = line.strip().partition(": ")
            yield Check(name, False, f"{law}: {detail}", hint)
        return
    except Exception as error:
        yield Check(name, False, f"{type(error).__name__}: {' '.join(str(error).split())}", hint)
        return
    yield Check(name, True, f"{len(found)} laws, {time.perf_counter() - start:.1f} s")


def of_domain(plugin: Plugin, groups: Mapping[str, Any]) -> Iterator[Check]:
    """The checks of one domain."""
    name, start = f"domain {plugin.name}", time.perf_counter()
    fresh = plugin.entry.module not in sys.modules
    try:
        plugin.module()
        taken = time.perf_counter() - start
        figure = f"{taken:.1f} s" if fresh else "imported already"
        yield Check(f"{name}: import", taken < IMPORT, figure, "import heavy packages inside functions")
        domain: Domain = plugin.build(groups)
        start = time.perf_counter()
        data = domain.data
    except Exception as error:
        hint = "see the message; fm-science domains NAME lists the options"
        yield Check(f"{name}: data", False, f"{type(error).__name__}: {' '.join(str(error).split())}", hint)
        return
    found = f"{len(data.train):,} to train on, {len(data.validation):,} held out, {time.perf_counter() - start:.1f} s"
    yield Check(f"{name}: data", len(data.train) > 0 and len(data.validation) > 0, found, "give it more data")
    from fm_science.testing import check_domain

    yield from _laws(f"{name}: laws", lambda: check_domain(domain), "the law says which part of the domain is wrong")
