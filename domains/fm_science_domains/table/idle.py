"""Options of tables that the chosen kind of model does not read.

They are told in one line, where they once did nothing in silence. What is built is the same: options are only watched
while it is.
"""

from __future__ import annotations

from torch import nn

from fm_science.flow import Sampler as Drawing
from fm_science.reads import Watch

from . import recipe
from .data import Summary
from .recipe import Coupling, Network, Objective, Path, Sample

#: read when rows are asked for, or when the teacher is
LATER = frozenset(("sample.label", "sample.balanced", "sample.given", "sample.draws", "objective.teacher"))


def network(o: Network, way: Path, trained: Objective, summary: Summary) -> nn.Module:
    """As :func:`recipe.network`."""
    watch = Watch()
    found = recipe.network(watch.over("network", o), way, trained, summary)
    watch.tell(_because(way, trained), LATER)
    return found


def sampler(o: Sample, way: Path, trained: Objective, summary: Summary) -> Drawing:
    """As :func:`recipe.sampler`."""
    watch = Watch()
    found = recipe.sampler(watch.over("sample", o), way, trained, summary)
    watch.tell(_because(way, trained), LATER)
    return found


def check_objective(o: Objective, way: Path, pairs: Coupling, drawn: Sample, summary: Summary) -> None:
    """Tells what neither the objective nor path and sampler read of their options."""
    watch = Watch()
    trained, travel, paired = watch.over("objective", o), watch.over("path", way), watch.over("coupling", pairs)
    recipe.path(travel, trained, summary)
    recipe.sampler(drawn, travel, trained, summary)
    recipe.objective(trained, travel, paired, summary)
    watch.tell(_because(way, o), LATER)


def _because(way: Path, trained: Objective) -> str:
    return f"objective.kind={trained.kind}" + (f" path.kind={way.kind}" if way.kind else "")
