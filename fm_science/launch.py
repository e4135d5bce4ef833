"""From the words on the command line to the configuration of a job, by Hydra.

Hydra gives the grammar of ``key=value``, sweeps (``-m``) and launchers; the tree it starts from is made by
``fm_science.config`` and handed over in memory. A single job runs after Hydra has left; only the jobs of a sweep run
inside it. Hydra writes nothing into a run folder and never changes the working directory.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fm_science import config
from fm_science.errors import UserError, nearest

SWITCHES = ("-m", "--multirun", "--resolve")
VALUED = ("-c", "--cfg", "-p", "--package")  # flags that are followed by a value


@dataclass(frozen=True)
class Words:
    """The arguments of a command, sorted: paths first, Hydra's flags, and overrides ``key=value``."""

    paths: tuple[str, ...]
    flags: tuple[str, ...]
    overrides: tuple[str, ...]

    @property
    def sweep(self) -> bool:
        return "-m" in self.flags or "--multirun" in self.flags

    def values(self, key: str) -> list[str]:
        """What was given for a key: nothing, one value, or all values of a sweep."""
        found = [item for item in parse(self.overrides) if item.key_or_group == key]
        return [text for item in found for text in _texts(item)]


def words(args: list[str]) -> Words:
    """Sort the arguments of a command. Outside a sweep, what Hydra's grammar cannot read is taken as text.

    Raises UserError at a flag that does not exist."""
    paths, flags, overrides = [], [], []
    rest = iter(args)
    for word in rest:
        if word in SWITCHES:
            flags.append(word)
        elif word in VALUED:
            flags += [word, next(rest, "")]
        elif word.startswith("--cfg=") or word.startswith("--package="):
            flags.append(word)
        elif word.startswith("-"):
            raise UserError(f"unknown flag {word!r}; {nearest(word, [*SWITCHES, *VALUED, '--help'])}")
        elif ("=" in word and not Path(word).exists()) or word.startswith("~"):
            overrides.append(word)
        else:
            paths.append(word)
    found = Words(tuple(paths), tuple(flags), tuple(overrides))
    return found if found.sweep else replace(found, overrides=tuple(map(_literal, overrides)))


def _literal(override: str) -> str:
    """``override``, its value quoted where the grammar cannot read it, or reads as a sweep the commas of pairs such
    as ``phase:angle,kind:class`` or of the name of a file that is there: shells take quotes away, so names such as
    ``file (1).sdf`` arrive bare."""
    key, given, text = override.partition("=")
    try:
        (item,) = parse((override,))
        bare = item.is_sweep_override() and (":" in text or Path(text).exists())
    except UserError:
        bare = bool(given)
    # inside quotes, backslashes count only before a quote
    quoted = re.sub(r"(\\*)('|\Z)", lambda run: run[1] * 2 + ("\\'" if run[2] else ""), text)
    return f"{key}='{quoted}'" if bare else override


def parse(overrides: tuple[str, ...]) -> list[Any]:
    """The overrides in Hydra's terms. Raises UserError where the grammar does not allow one."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    found = []
    for text in overrides:
        try:
            found.append(parser.parse_override(text))
        except HydraException as error:
            raise UserError(f"cannot read {text!r}: {error}; quote special characters: \"key='value'\"") from error
    return found


def _texts(item: Any) -> list[str]:
    if item.is_sweep_override():
        return [str(value) for value in item.sweep_string_iterator()]
    value = item.value()
    return [] if value is None else [str(value)]


def check(given: Words, known: config.Tree) -> None:
    """Raise OptionError at the first override whose key does not exist (Hydra's own ``hydra.`` keys are left to it)."""
    keys = [item.key_or_group for item in parse(given.overrides)]
    config.check_names([key for key in keys if not key.startswith(("hydra.", "hydra/"))], known)


def run(
    command: str,
    given: Words,
    base: config.Tree,
    job: Callable[[config.Tree, int | None], None],
    choices: Mapping[str, Mapping[str, config.Tree]] | None = None,
    place: str = "run",
) -> None:
    """Compose the configuration of each job and call ``job(tree, number)``; the number is None outside a sweep.

    ``choices`` are Hydra's config groups: ``{"preset": {"quick": tree}}`` lets ``preset=quick`` merge that tree into
    the root. A group whose name stands in ``base`` with a value starts with that choice. ``place`` is the key that
    names the folder of a sweep.
    """
    import hydra

    composed: list[config.Tree] = []

    def task(tree: Any) -> None:
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        plain: Any = OmegaConf.to_container(tree, resolve=True)
        if not given.sweep:
            composed.append(plain)
            return
        number = int(HydraConfig.get().job.num)
        print(f"job {number}: {' '.join(HydraConfig.get().overrides.task)}", flush=True)
        with _alone():
            job(plain, number)

    version = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {}
    words = [*given.flags, *given.overrides]
    with _stored(command, base, choices or {}, place), _arguments(words), _plain_errors():
        hydra.main(config_path=None, config_name=command, **version)(task)()
    _leave()
    for tree in composed:
        job(tree, None)


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
    """A job of a sweep leaves nothing behind that would make the next one think it is a rank of the first."""
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
    """Forget Hydra's state, so that Lightning starts its other ranks with the plain words of ``sys.argv``."""
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().cfg = None


def rank() -> int:
    """This process's number among those that train together; 0 when it is alone."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def launched() -> bool:
    """Whether another program (torchrun, srun) started several processes of this command at once."""
    world = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or "1"
    return int(world) > 1
