"""Tables: rows of numbers, angles and classes, which is what most people have.

A row is a point of a product of spaces, one for each column: real coordinates, circles, classes. One flow learns the
law of whole rows and of any cells given any others, so that it draws new rows and fills the empty cells of old ones.
Where all columns are continuous the likelihood is exact, in the user's own units.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

import torch

from fm_science.data import TrainingData
from fm_science.domain import Domain, Statistics
from fm_science.errors import OptionError, UserError
from fm_science.flow import Flow
from fm_science.metrics import Metric
from fm_science.objectives import Objective as Loss
from fm_science.state import Context, State
from fm_science.storage import write_text

from . import appraisal, idle, recipe, report
from . import metrics as measures
from .conditional import Given, read_given
from .data import Data, Sets, Source, Summary, label_codes
from .files import DataFrame, read
from .meanings import MEANINGS
from .metrics import Metrics
from .recipe import Coupling, Network, Objective, Path, Sample
from .rows import Row, read_rows, rows_of, write

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """The groups of options."""

    data: Data = Data()
    network: Network = Network()
    path: Path = Path()
    coupling: Coupling = Coupling()
    objective: Objective = Objective()
    sample: Sample = Sample()
    metrics: Metrics = Metrics()


class Table(Domain):
    """Rows of a table.

    Args:
        frame: a data frame (pandas, or alike) to learn from, in place of ``data.source``.
        statistics, groups: as in :class:`~fm_science.domain.Domain`.
    """

    name = "table"
    metric_meanings = MEANINGS
    options: Options
    slow = frozenset({"transport", "classifier"})
    numbered = True
    sample_batch = 1000
    evaluation_samples = 2000

    def __init__(
        self, statistics: Statistics | None = None, frame: DataFrame | None = None, **groups: Any
    ) -> None:  # fmt: skip
        self.frame = None if frame is None else read(frame)
        self._given: dict[str, Given] = {}
        super().__init__(statistics, **groups)

    def check_options(self) -> None:
        trained = self.options.objective
        recipe.chosen(self.options.path, trained)
        if (trained.kind in ("reflow", "distil")) != (trained.teacher is not None):
            raise OptionError("objective.teacher=RUN names the trained run that kind=reflow and kind=distil learn from")
        o = self.options.sample
        if o.given is None and o.draws != 1:
            raise OptionError("sample.draws fills each row several times: name the rows with given=FILE")

    # ------------------------------------------------------------------------------------------------------- learning

    def load_data(self) -> TrainingData:
        o = self.options.data
        source = Source.open(o, self.frame)
        sets = source.sets(source.summary(o) if self.given is None else Summary.from_dict(self.given))
        return TrainingData(sets.train, sets.held_out, o.batch, 0, o.workers, sets)

    def preparation(self) -> None:
        raise UserError("a table is one file, which training reads in one go, .parquet the fastest: data.source=FILE")

    @property
    def sets(self) -> Sets:
        """Training and held-out rows."""
        sets: Sets = self.data.source
        return sets

    def fit_statistics(self, data: TrainingData) -> Statistics:
        return data.source.summary.as_dict()

    @cached_property
    def summary(self) -> Summary:
        """What was fitted to the training rows."""
        return Summary.from_dict(self.statistics)

    def build_flow(self, statistics: Statistics) -> Flow:
        o, summary = self.options, Summary.from_dict(statistics)
        made = recipe if self.given is not None else idle  # a run that is loaded was told when it was trained
        network = made.network(o.network, o.path, o.objective, summary)
        sampler = idle.sampler(o.sample, o.path, o.objective, summary)
        return Flow(recipe.path(o.path, o.objective, summary), summary.encoding.prior(), network, sampler)

    def build_objective(self, statistics: Statistics) -> Loss:
        o, summary = self.options, Summary.from_dict(statistics)
        found = recipe.objective(o.objective, o.path, o.coupling, summary)
        if self.given is None:
            idle.check_objective(o.objective, o.path, o.coupling, o.sample, summary)
        return found

    def write_provenance(self, folder: FilePath) -> list[FilePath]:
        """What each column was taken for, printed and written as ``columns.txt``."""
        print(self.sets.shown, flush=True)
        write_text(self.sets.shown + "\n", folder / "columns.txt")
        return [folder / "columns.txt"]

    # -------------------------------------------------------------------------------------------------------- drawing

    def count_samples(self, n: int | None) -> int:
        """As many as are asked for, and each of so many rows of the user ``sample.draws`` times; all rows where nothing
        is said."""
        o = self.options.sample
        if o.given is None:
            return super().count_samples(n)
        rows = len(self.rows_to_fill(o.given))
        if n is not None and n > rows:
            log.warning("given=%s has %d rows: all are filled", o.given, rows)
        return min(rows, rows if n is None else n) * o.draws

    def rows_to_fill(self, file: str) -> Given:
        """The rows of a file of the user whose empty cells are filled; read once."""
        if file not in self._given:
            self._given[file] = read_given(file, self.summary)
        return self._given[file]

    def request(
        self, n: int, first: int = 0, label: str | None = None, balanced: bool | None = None, given: str | None = None,
        draws: int | None = None,
    ) -> Context:  # fmt: skip
        """``n`` rows, numbered from ``first``: new ones, or with ``given=FILE`` the rows of a file, each ``draws``
        times.

        Raises:
            UserError: for a condition that there is not, and rows that cannot be filled.
        """
        o, summary = self.options.sample, self.summary
        file = o.given if given is None else given
        if file is not None:
            return self._filling(file, n, first, o.draws if draws is None else draws)
        context = Context.full(n, summary.encoding.sites, observed=torch.ones(n, len(summary.encoding.order)).bool())
        wanted = o.label if label is None else label
        if summary.condition is not None:
            codes = label_codes(summary, n, wanted, o.balanced if balanced is None else balanced)
            return replace(context, cond={**context.cond, "label": codes})
        if wanted is not None:
            raise UserError("sample.label: this run has no condition; train with data.condition=COLUMN")
        return context

    def _filling(self, file: str, n: int, first: int, draws: int) -> Context:
        """The context of rows of a file whose known cells are frozen."""
        rows, encoding = self.rows_to_fill(file), self.summary.encoding
        trained = self.options.objective
        if not trained.fills:
            reason = f"kind={trained.kind}" if trained.given else "given=0"
            raise UserError(f"given={file}: this run cannot fill cells, since it was trained with objective.{reason}")
        number = torch.arange(first, first + n)
        if first + n > draws * len(rows):
            raise UserError(f"given={file} has {len(rows)} rows; ask for n={len(rows)}, or fewer")
        index = (number // draws).tolist()
        known, free = rows.state(encoding, index)
        cond = {"observed": torch.ones(n, len(encoding.order), dtype=torch.bool)}
        if encoding.condition_index is not None:
            cond["label"] = encoding.condition_codes(rows.values[index])
        place = torch.full((n,), list(self._given).index(file))
        cond |= {"file": place, "row": number // draws, "draw": number % draws, "draws": torch.full((n,), draws)}
        return Context(torch.ones(n, encoding.sites, dtype=torch.bool), cond, free, known)

    def decode(self, state: State, context: Context) -> list[Row]:
        encoding, cond = self.summary.encoding, context.cond
        found = rows_of(encoding.decode(state, cond.get("label")), self.summary)
        if "row" not in cond:
            return found
        files = list(self._given.values())
        facts = zip(*(cond[name].tolist() for name in ("file", "row", "draw", "draws")), strict=True)
        return [
            replace(row, filled=files[file].filled(number, draw, draws))
            for row, (file, number, draw, draws) in zip(found, facts, strict=True)
        ]

    def read(self, paths: Sequence[Any]) -> list[Row]:
        return read_rows(paths, self.summary)

    def write(self, samples: Sequence[Row], folder: FilePath, first: int = 0) -> list[FilePath]:
        return write(samples, folder, first)

    def trajectory(self, frames: Sequence[Sequence[Row]], folder: FilePath, first: int = 0) -> list[FilePath]:
        """One CSV a sample with a row a step, and a picture of the ways of two columns."""
        return report.trajectory(self.summary.encoding, frames, folder, first)

    # -------------------------------------------------------------------------------------------------------- judging

    def build_metrics(self) -> Mapping[str, Metric]:
        return measures.metrics(self.options.metrics, self.summary, lambda: self.sets)

    def references(self, samples: Sequence[Row]) -> dict[str, list[Row]]:
        return measures.references(self.options.metrics, self.summary, self.sets, len(samples))

    def report(self, rows: Mapping[str, list[Row]], folder: FilePath) -> list[FilePath]:
        return report.report(self.summary.encoding, rows, folder)

    def evaluate_flow(self, flow: Flow, folder: FilePath | None = None) -> dict[str, float]:
        """Likelihoods; and where the flow learned to fill cells, how honest its fills are."""
        chosen = self.options.metrics if self.options.objective.fills else replace(self.options.metrics, coverage=0)
        return appraisal.appraise(flow, chosen, self.summary, self.sets, self.options.data.source, folder)


build = Table
