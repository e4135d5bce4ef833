"""The commands that reproduce claims: their exact fields are exact, their distances known, their tables readable."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import tables
from benchmarks.claims import paths, reflow, transport
from benchmarks.claims.measures import way
from benchmarks.training import Budget, cosine, fitted, matching, network, train
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.spaces import Euclidean
from fm_science.state import Context
from tests.oracles.plane import draw

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "mean", "spread"), [("N", 0.0, 1.0), ("8gaussians", 0.0, 13.5**0.5), ("moons", -0.25, 1.414)]
)
def test_laws_in_the_plane(name, mean, spread) -> None:
    x = draw(name, 20_000, 0)
    assert x.shape == (20_000, 1, 2)
    assert torch.equal(x, draw(name, 20_000, 0))
    assert float(x.mean()) == pytest.approx(mean, abs=0.1)
    assert float((x - x.mean((0, 1))).square().mean().sqrt()) == pytest.approx(spread, rel=0.05)


def test_training_is_the_same_for_a_seed_and_learns() -> None:
    data = draw("moons", 500, 0)
    flows = [
        fitted(Flow(Geodesic(Euclidean(2)), Normal(), network(1)), matching(FlowMatching()), data, 60, 64, 3)
        for _ in range(2)
    ]
    x0 = torch.randn(200, 1, 2)
    ends = [flow.transport(x0, Context.full(200), steps=5) for flow in flows]
    assert torch.equal(*ends)
    blank = Flow(Geodesic(Euclidean(2)), Normal(), network(1))
    loss, context = FlowMatching(), Context.full(500)
    torch.manual_seed(0)
    before = loss(blank, data, context)["loss"].mean()
    torch.manual_seed(0)
    assert loss(flows[0], data, context)["loss"].mean() < before


def test_a_straight_way_is_straight() -> None:
    shift = torch.tensor([3.0, 4.0])
    travelled = way(
        Flow(Geodesic(Euclidean(2)), Normal(), lambda x, t, c: shift.expand_as(x)), torch.randn(9, 1, 2), 10
    )
    assert travelled.energy == pytest.approx(25, rel=1e-5)
    assert travelled.length == pytest.approx(1, rel=1e-5)
    assert travelled.bend == pytest.approx(0, abs=1e-6)


def test_the_measurements_run() -> None:
    found = paths.measure("ring", "DDPM (noise)", 0, 3, 20)
    assert math.isfinite(found[0]["nll"])
    assert {"solver", "error"} <= set(found[1])
    assert transport.measure("N→moons", "OT-CFM", 0, 3)[0]["npe"] > 0
    assert [r["k"] for r in reflow.measure("moons", 0, 4)] == [1, 2, 3]


def test_noise_is_exchanged_in_pools_and_larger_ones_are_cheaper() -> None:
    from benchmarks.claims.transport import apart, methods_by_pool

    lengths = [apart(coupling, size) for coupling, size in methods_by_pool().values()]
    assert lengths[0] == 1
    assert lengths == sorted(lengths, reverse=True)


def test_digits_are_compared_with_digits() -> None:
    from benchmarks.claims.measures import DIGITS

    assert DIGITS.train.shape == (1438, 1, 64)
    assert (DIGITS.dithered(DIGITS.train[:9]) - DIGITS.train[:9]).abs().max() <= DIGITS.bin / 2
    assert DIGITS.distance(DIGITS.train) == pytest.approx(0, abs=1e-6)
    assert DIGITS.distance(torch.randn(300, 1, 64)) > 5 * DIGITS.real


def test_tables_and_pages(tmp_path) -> None:
    records = [{"method": m, "seed": s, "nfe": 10 + s} for m in ("a", "b") for s in range(3)]
    table = tables.markdown(records, {"method": "method"}, {"nfe": "NFE", "gone": "gone"})
    assert table.splitlines()[2] == "| a | 11.0 ± 1.0 | - |"
    tables.save(records, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "method,seed,nfe"
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- x -->\nold\n<!-- /x -->\nafter\n")
    tables.publish("x", "new", page)
    assert page.read_text() == "before\n<!-- x -->\nnew\n<!-- /x -->\nafter\n"
    with pytest.raises(ValueError, match="no place"):
        tables.publish("y", "new", page)


def test_what_was_measured_is_not_measured_again(tmp_path) -> None:
    study = tables.Study(steps=3, file=tmp_path / "a.jsonl")
    made: list[int] = []

    def work() -> list[tables.Record]:
        made.append(0)
        return [{"error": 0.25}]

    records = [study.measure({"method": "a", "seed": seed}, work) for seed in (0, 1, 0)]
    assert len(made) == 2
    assert records[2] == records[0] == [{"method": "a", "seed": 0, "error": 0.25}]
    tables.Study(steps=4, file=study.file).measure({"method": "a", "seed": 0}, work)
    assert len(made) == 3  # another number of steps
    with pytest.raises(SystemExit, match="choose --only from plane"):
        tables.Study(only=("space",)).chosen(["plane"])


def test_training_stops_by_steps_or_seconds_and_averages() -> None:
    line = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(line.weight)
    optimizer, budget = torch.optim.SGD(line.parameters(), 1.0), Budget(3)
    pace = cosine(optimizer, budget, floor=1.0)
    assert train(line, lambda step: -line.weight.sum(), optimizer, pace, budget, decay=1e9) == 3
    expected = 0.0
    for step, weight in enumerate((1.0, 2.0, 3.0)):
        expected += (1 - (1 + step) / (10 + step)) * (weight - expected)
    assert line.weight.item() == pytest.approx(expected)
    assert train(line, lambda step: line.weight.sum(), optimizer, pace, Budget(seconds=0.02)) > 0
