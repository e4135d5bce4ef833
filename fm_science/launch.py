"""From the arguments on the command line to the configuration of a job, by Hydra.

Hydra gives the grammar of ``key=value``, sweeps (``-m``) and launchers; the tree it starts from is made by
``fm_science.config`` and passed in memory. A single job is composed, and then runs without Hydra; only the jobs of a
sweep run inside Hydra. Hydra writes nothing into a run folder and never changes the working directory.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fm_science import config, trust
from fm_science.errors import UserError, nearest
from fm_science.ranks import launched as launched
from fm_science.ranks import rank as rank
from fm_science.ranks import wait_for_first as wait_for_first
from fm_science.words import Words as Words
from fm_science.words import parse as parse
from fm_science.words import values
from fm_science.words import words as words

PLACES = ("run", "resume", "out")  # keys whose value is a folder


def _no_place(value: Any, default: Any) -> bool:
    """Whether a value cannot name a folder; numbers can, and null if there is no other default."""
    if value is None:
        return default is not None
    return isinstance(value, bool | list | dict) or not str(value).strip() or "\0" in str(value)


def check(given: Words, known: config.Tree) -> None:
    """Raise OptionError for the first override whose key does not exist (Hydra checks its own ``hydra.`` keys), and
    UserError if one removes what a command needs, or gives an empty name of a folder."""
    found = parse(given.overrides)
    keys = [item.key_or_group for item in found]
    config.check_names([key for key in keys if not key.startswith(("hydra.", "hydra/"))], known)
    for item in found:
        if isinstance(known.get(item.key_or_group), Mapping) and not all(isinstance(v, dict) for v in values(item)):
            raise UserError(f"{item.key_or_group} is a group of options: write {item.key_or_group}.NAME=value")
        if item.is_delete():
            raise UserError(f"~{item.key_or_group} would take the option away: leave it out to use its default")
        default = known.get(item.key_or_group)
        if item.key_or_group in PLACES and any(_no_place(value, default) for value in values(item)):
            raise UserError(
                f"{item.get_key_element()}={item.get_value_element_as_str()} names no folder: leave it out to use its "
                "default"
            )


def run(
    command: str,
    given: Words,
    base: config.Tree,
    job: Callable[[config.Tree, int | None], None],
    choices: Mapping[str, Mapping[str, config.Tree]] | None = None,
    place: str = "run",
    origin: str | None = None,
) -> None:
    """Compose the configuration of each job and call ``job(tree, number)``; the number is None outside a sweep.

    ``origin`` is the run folder that options come from, if they were not typed: code that it names is imported only
    with ``trust=true``.

    ``choices`` are Hydra's config groups: ``{"preset": {"quick": tree}}`` lets ``preset=quick`` merge that tree into
    the root. A group whose name has a value in ``base`` starts with that choice. ``place`` is the key that
    names the folder of a sweep.
    """
    with trust.source(None if given.trust else origin):
        with _stored(command, base, choices or {}, place):
            if given.sweep:
                return _sweep(command, given, job)
            tree = _compose(command, given)
        if tree is not None:
            job(tree, None)
    return None


def _compose(command: str, given: Words) -> config.Tree | None:
    """The configuration of a single job; ``None`` if it was only printed."""
    from hydra import compose, initialize
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    shown = _shown(given.flags)
    try:
        with initialize(config_path=None, **_version()):  # type: ignore[arg-type]
            tree = compose(command, list(given.overrides))
            if shown is not None:
                part = OmegaConf.select(tree, shown, throw_on_missing=True) if shown else tree
                if part is None:
                    raise UserError(f"--package {shown}: there is no such group; {nearest(shown, map(str, tree))}")
                print(OmegaConf.to_yaml(part, resolve="--resolve" in given.flags), end="")
                return None
            plain: Any = OmegaConf.to_container(tree, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error)) from error
    return plain


def _shown(flags: tuple[str, ...]) -> str | None:
    """What the flags print in place of running a job: "" for all of it, else a group. Raises UserError if Hydra's own
    configuration is requested, which only sweeps have."""
    pairs = {"-c": "--cfg", "-p": "--package"}
    split = [part for flag in flags for part in (flag.split("=", 1) if flag.startswith("--") else [flag])]
    given = {pairs.get(a, a): b for a, b in itertools.pairwise([*split, ""])}
    if "--cfg" not in given:
        return None
    if given["--cfg"] != "job":
        raise UserError(f"--cfg {given['--cfg']}: a single job has its own configuration only: --cfg job")
    return given.get("--package", "")


def _version() -> dict[str, str]:
    import hydra

    return {"version_base": "1.3"} if hydra.__version__ < "1.4" else {}


def _sweep(command: str, given: Words, job: Callable[[config.Tree, int | None], None]) -> None:
    """Let Hydra start the jobs of a sweep, by the launcher that is configured."""
    import hydra

    def task(tree: Any) -> None:
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        plain: Any = OmegaConf.to_container(tree, resolve=True)
        number = int(HydraConfig.get().job.num)
        print(f"job {number}: {' '.join(HydraConfig.get().overrides.task)}", flush=True)
        with _alone():
            job(plain, number)

    with _arguments([*given.flags, *given.overrides]), _plain_errors():
        hydra.main(config_path=None, config_name=command, **_version())(task)()


@contextmanager
def _stored(
    command: str, base: config.Tree, choices: Mapping[str, Mapping[str, config.Tree]], place: str
) -> Iterator[None]:  # fmt: skip
    """Hydra reads what it composes from its store in memory."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, options in choices.items():
        for name, tree in options.items():
            store.store(name, {group: name, **tree}, group=group, package="_global_")
    picks: list[Any] = [{group: base.get(group)} for group in choices]
    quiet = {
        "run": {"dir": "."},
        "sweep": {"dir": f"${{{place}}}", "subdir": "${hydra.job.num}"},
        "output_subdir": None,
        "job": {"chdir": False},
    }
    silent = [{f"override hydra/{name}": "none"} for name in ("job_logging", "hydra_logging")]
    store.store(command, {"defaults": ["_self_", *picks, *silent], **base, "hydra": quiet})
    try:
        yield
    finally:
        for name in (f"{command}.yaml", *choices):
            store.repo.pop(name, None)


@contextmanager
def _arguments(rest: list[str]) -> Iterator[None]:
    """Hydra reads the arguments of the process."""
    before = sys.argv
    sys.argv = [before[0], *rest]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Hydra raises its errors instead of printing them and ending the process; they become mistakes of the user."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error)) from error
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextmanager
def _alone() -> Iterator[None]:
    """A job of a sweep leaves no variables that would make the next one a rank of the first."""
    before = dict(os.environ)
    _leave()
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


def _leave() -> None:
    """Forget Hydra's state, so that Lightning starts its other ranks with the plain arguments of ``sys.argv``."""
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().cfg = None
