"""A domain as a record of its parts, all created beforehand: how domains were written before they were classes.

``Domain(name=..., path=..., ...)`` still makes one, so that older packages keep working. Its data are read when it is
created, so a run of it needs its options and its data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from torch import nn

from fm_science.data import TrainingData
from fm_science.domain import Domain
from fm_science.flow import Flow, Sampler
from fm_science.metrics import Metric
from fm_science.paths import Path
from fm_science.priors import Prior
from fm_science.state import Context, State
from fm_science.symmetries import Symmetry

Files = list[FilePath]


@dataclass(frozen=True)
class RecordDomain(Domain):
    """One science as a record. The fields are the attributes and methods of :class:`~fm_science.Domain`; ``record``,
    ``table`` and ``appraise`` are its ``write_provenance``, ``per_sample_metrics`` and ``evaluate_flow``, and
    ``options`` the dataclass of each group."""

    name: str = field()
    path: Path = field()
    prior: Prior = field()
    network: nn.Module = field()
    data: TrainingData = field()
    objective: Any = field()
    request: Callable[..., Context] = field()
    decode: Callable[[State, Context], list] = field()  # type: ignore[assignment]
    read: Callable[[Sequence[Any]], list] = field()  # type: ignore[assignment]
    write: Callable[..., Files] = field()
    metrics: Mapping[str, Metric] = field()
    report: Callable[[Mapping[str, list], FilePath], Files] = field()  # type: ignore[assignment]
    references: Callable[[list], dict[str, list]] = field()  # type: ignore[assignment]
    sampler: Sampler = field(default=Sampler())
    symmetries: tuple[Symmetry, ...] = field(default=())
    equivariant: bool = field(default=True)
    trajectory: Callable[..., Files] | None = field(default=None)  # type: ignore[assignment]
    record: Callable[[FilePath], Files] | None = field(default=None)
    table: Callable[[list], list[dict[str, Any]]] | None = field(default=None)
    appraise: Callable[..., dict[str, float]] | None = field(default=None)
    slow: frozenset[str] = field(default=frozenset())
    options: Mapping[str, type] = field(default_factory=dict)
    given: None = field(default=None, init=False)

    def load_data(self) -> TrainingData:
        return self.data

    def build_flow(self, statistics: Mapping[str, Any]) -> Flow:
        return Flow(self.path, self.prior, self.network, self.sampler)

    @property
    def writes_trajectories(self) -> bool:
        return self.trajectory is not None

    def per_sample_metrics(self, samples: Sequence[Any]) -> list[dict[str, Any]]:
        return self.table(list(samples)) if self.table is not None else []

    def evaluate_flow(self, flow: Flow, folder: FilePath | None = None) -> dict[str, float]:
        return self.appraise(flow, folder) if self.appraise is not None else {}

    def write_provenance(self, folder: FilePath) -> Files:
        return self.record(folder) if self.record is not None else []


RecordDomain.__abstractmethods__ = frozenset()  # the fields of an instance replace the abstract methods
