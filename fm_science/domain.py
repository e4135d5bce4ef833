"""A domain is one science's choice of everything: space, path, prior, network, data and metrics.

The engine never imports a domain. It finds one through an entry point of the group ``fm_science.domains`` whose value
is a function ``build(data=..., network=..., ...)``. Each argument is a frozen dataclass of options, or a mapping with
some of its fields: the defaults live in those dataclasses and nowhere else. Beside ``build`` the module holds
``OPTIONS``, the dataclasses by the names of its arguments.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from torch import nn

from fm_science.data import TrainingData
from fm_science.errors import OptionError, nearest
from fm_science.flow import Flow, Sampler
from fm_science.metrics import Metric
from fm_science.paths import Path
from fm_science.priors import Prior
from fm_science.state import Context, State
from fm_science.symmetries import Symmetry


def option(
    default: Any, help: str, unit: str = "", low: float | None = None, high: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:  # fmt: skip
    """A field of a dataclass of options: its default, one line of help, its unit, and what it may be."""
    meta = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=meta)


def group(kind: type, values: Any, name: str = "") -> Any:
    """An instance of the options dataclass ``kind`` from ``None`` (all defaults), a mapping, or itself.

    Raises:
        OptionError: for an unknown key (with the nearest known one), a wrong type, or a value out of range.
    """
    if isinstance(values, kind):
        return values
    values = dict(values or {})
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    prefix = f"{name}." if name else ""
    for key in values:
        if key not in fields:
            raise OptionError(f"unknown option {prefix}{key}; {nearest(key, fields)}")
    return kind(**{k: _checked(f"{prefix}{k}", v, hints[k], fields[k].metadata) for k, v in values.items()})


def groups(kinds: Mapping[str, type], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every group of a domain by its name: ``groups(OPTIONS, locals())`` as the first line of ``build`` reads its
    arguments. Raises OptionError as :func:`group` does."""
    return {name: group(kind, given[name], name) for name, kind in kinds.items()}


def _checked(name: str, value: Any, hint: Any, meta: Mapping[str, Any]) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    accepted = tuple(typing.get_origin(k) or k for k in kinds)
    if float in accepted and isinstance(value, int) and not isinstance(value, bool) and int not in accepted:
        value = float(value)
    if (isinstance(value, bool) and bool not in accepted) or not isinstance(value, accepted):
        wanted = " or ".join("null" if k is types.NoneType else k.__name__ for k in accepted)
        raise OptionError(f"{name}={value!r}: expected {wanted}, got {type(value).__name__}")
    low, high, choices = meta.get("low"), meta.get("high"), meta.get("choices")
    if choices is not None and value is not None and value not in choices:
        raise OptionError(f"{name}={value!r}: expected one of {', '.join(map(str, choices))}")
    if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
        limits = " and ".join(f"{w} {b}" for w, b in (("at least", low), ("at most", high)) if b is not None)
        raise OptionError(f"{name}={value!r}: expected {limits}{' ' + meta['unit'] if meta.get('unit') else ''}")
    return value


@dataclass(frozen=True)
class Domain:
    """One science. Decoded objects (a backbone, a molecule, an image) are what scientists read and write.

    Attributes:
        name: the word that is typed in the shell.
        path, prior, network: what a :class:`~fm_science.Flow` is made of.
        data: the training and held-out sets.
        objective: what a training step minimises.
        sampler: how samples are drawn when nothing else is said.
        request: ``(n, **sample) -> Context``, what to sample; keywords override the options of the group ``sample``.
        decode: ``(state, context) -> list`` of decoded objects.
        read: ``(paths) -> list`` of decoded objects from files or folders.
        write: ``(samples, folder, first=0) -> list of files``, numbered from ``first``.
        metrics: by name; each takes (samples, reference) and gives named numbers.
        report: ``(rows, folder) -> list of pictures``; rows are lists of decoded objects by name.
        references: ``(samples) -> rows`` to judge samples by; the first row is the held-out set.
        symmetries: motions under which the law of the data does not change.
        equivariant: whether the network respects them; if not, training draws random poses.
        trajectory: ``(frames, folder, first=0) -> list of files``: frames[k][i] is sample i after step k.
        record: ``(folder) -> list of files``: what to keep beside a run, such as a list of data that were left out.
        table: ``(samples) -> list of dicts``: every metric of each sample, for a table with one row a sample.
        appraise: ``(flow, folder=None) -> named numbers``: what can only be said of the trained flow itself, such as
            likelihoods; pictures of it are drawn into the folder.
        slow: the names of metrics that only ``evaluate`` measures, since they would hold up training.
        options: the dataclass of each group of options.
    """

    name: str
    path: Path
    prior: Prior
    network: nn.Module
    data: TrainingData
    objective: Any
    request: Callable[..., Context]
    decode: Callable[[State, Context], list]
    read: Callable[[Sequence[Any]], list]
    write: Callable[..., list[FilePath]]
    metrics: Mapping[str, Metric]
    report: Callable[[Mapping[str, list], FilePath], list[FilePath]]
    references: Callable[[list], dict[str, list]]
    sampler: Sampler = Sampler()
    symmetries: tuple[Symmetry, ...] = ()
    equivariant: bool = True
    trajectory: Callable[..., list[FilePath]] | None = None
    record: Callable[[FilePath], list[FilePath]] | None = None
    table: Callable[[list], list[dict[str, Any]]] | None = None
    appraise: Callable[..., dict[str, float]] | None = None
    slow: frozenset[str] = frozenset()
    options: Mapping[str, type] = field(default_factory=dict)

    def flow(self) -> Flow:
        """The flow of this domain, untrained."""
        flow = Flow(self.path, self.prior, self.network, self.sampler)
        flow.domain = self
        flow.independent = getattr(self.objective, "independent", True)
        flow.independent_parts = getattr(self.objective, "untied", ())
        return flow
