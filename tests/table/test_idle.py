"""Options that the chosen kind of model does not read are told in one line, and nothing is told of the others."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

import pytest

from fm_science.domain import option
from fm_science.reads import Watch
from fm_science_domains.table import Table

DATA = {"source": "moons", "train": 100, "test": 10}
SMALL = {"width": 16, "layers": 2}


def warned(caplog: pytest.LogCaptureFixture, **groups: Any) -> set[str]:
    """The names of the options of which a line was told in making a flow."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        Table(data=DATA, **{"network": SMALL, **groups}).flow()
    lines = [record.getMessage() for record in caplog.records if "without effect" in record.getMessage()]
    return {name for line in lines for name in re.findall(r"(\S+?)=", line.partition(":")[0])}


CASES: list[tuple[dict[str, Any], set[str]]] = [
    ({"objective": {"kind": "normalising_flow"}, "sample": {"steps": 20}}, {"sample.steps"}),
    ({"objective": {"kind": "icnn", "inner": 3}, "sample": {"steps": 20}}, {"sample.steps"}),
    ({"objective": {"kind": "normalising_flow", "inner": 3, "given": 0.1, "walk": 4}},
     {"objective.inner", "objective.given", "objective.walk"}),
    ({"objective": {"kind": "icnn"}, "network": {**SMALL, "transform": "planar", "waves": 3}},
     {"network.transform", "network.waves"}),
    ({"objective": {"kind": "jko", "blocks": 2, "walk": 4, "late": 2.0}}, {"objective.late"}),
    ({"objective": {"kind": "ddpm", "late": 2.0}}, {"objective.late"}),
    ({"objective": {"kind": "distil", "teacher": "none"}, "sample": {"steps": 20}}, {"sample.steps"}),
    ({"objective": {"hjb": 0.1, "law": "semigroup"}, "path": {"sigma": 2.0}},
     {"objective.hjb", "objective.law", "path.sigma"}),
    ({"path": {"kind": "interpolant", "sigma": 2.0}, "objective": {"late": 2.0}}, {"objective.late"}),
    ({"coupling": {"ranks": "all"}}, {"coupling.ranks"}),
]  # fmt: skip


@pytest.mark.parametrize(("groups", "idle"), CASES, ids=lambda case: "")
def test_what_does_nothing_is_told(groups: dict[str, Any], idle: set[str], caplog: pytest.LogCaptureFixture) -> None:
    assert warned(caplog, **groups) == idle


@pytest.mark.parametrize(
    "groups",
    [
        {},
        {"objective": {"kind": "flow_matching", "given": 0.0, "late": 1.0}, "sample": {"steps": 20}},
        {"objective": {"kind": "maximum_likelihood", "kinetic": 0.1, "hjb": 0.1, "trace": "exact", "walk": 3}},
        {"objective": {"kind": "jko", "blocks": 2, "size": 0.5, "block_steps": 9}, "sample": {"steps": 20}},
        {"objective": {"kind": "icnn", "inner": 3}},
        {"objective": {"kind": "flow_map", "law": "semigroup"}, "network": {**SMALL, "dropout": 0.1, "waves": 3}},
        {"path": {"kind": "schroedinger", "sigma": 2.0}, "objective": {"given": 0.0}},
        {"sample": {"label": None, "balanced": True}},
    ],
    ids=lambda groups: "",
)
def test_nothing_is_told_of_options_that_count(groups: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    assert warned(caplog, **groups) == set()


def test_a_loaded_run_tells_only_of_what_may_have_been_asked_now(caplog: pytest.LogCaptureFixture) -> None:
    groups: dict[str, Any] = {"data": DATA, "objective": {"kind": "normalising_flow", "walk": 4}, "network": SMALL}
    statistics = Table(**groups).statistics
    with caplog.at_level(logging.WARNING):
        Table(statistics, **groups, sample={"steps": 9}).flow()
    assert [r.getMessage() for r in caplog.records] == [
        "sample.steps=9: without effect with objective.kind=normalising_flow"
    ]


@dataclass(frozen=True)
class Few:
    """Two options."""

    one: int = option(1, "read")
    two: int = option(2, "not read")


def test_watched_options_are_the_options() -> None:
    watch = Watch()
    seen = watch.over("few", Few(3, 4))
    assert isinstance(seen, Few)
    assert watch.idle() == {"few.one": 3, "few.two": 4}
    assert seen.one == 3
    assert watch.idle() == {"few.two": 4}
    assert watch.idle(later=["few.two"]) == {}
