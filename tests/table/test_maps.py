"""Models of rows that jump: what they need, and the commands that serve them as they serve flows."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fm_science.cli import main
from fm_science.errors import OptionError
from fm_science_domains.table import Table

WORDS = ["domain=table", "preset=null", "data.source=moons", "data.train=300", "data.test=60", "data.blur=0"]
WORDS += ["network.width=16", "network.layers=2", "trainer.validate_every=30", "trainer.validation_samples=0"]


def test_a_normalising_flow_is_trained_drawn_and_judged_by_the_usual_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *WORDS, "run=one", "objective.kind=normalising_flow", "trainer.max_steps=30"]) == 0
    assert main(["sample", "one", "n=5", "out=drawn"]) == 0
    assert len(Path("drawn/samples.csv").read_text().splitlines()) == 6
    assert main(["evaluate", "one", "n=40", "out=judged", "metrics.transport=20"]) == 0
    with next(Path("judged").rglob("flow.csv")).open(newline="") as stream:
        assert "nll" in stream.read()
    capsys.readouterr()
    assert main(["sample", "one", "n=5", "solver=heun"]) == 2
    assert "at once" in capsys.readouterr().err
    Path("holes.csv").write_text("x,y\n0.5,\n")
    assert main(["sample", "one", "given=holes.csv"]) == 2
    assert "cannot fill cells" in capsys.readouterr().err


@pytest.mark.parametrize("transform", ["planar", "realnvp", "spline"])
def test_every_kind_of_layer_learns_rows(transform: str) -> None:
    """Ten steps lower the negative log-likelihood of the rows they learn from."""
    torch.manual_seed(0)
    data = {"source": "moons", "train": 256, "test": 10, "blur": 0.0}
    network = {"width": 16, "layers": 2, "transform": transform}
    domain = Table(data=data, network=network, objective={"kind": "normalising_flow"})
    flow, rows = domain.flow(), domain.sets.train
    context = domain.request(256)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    found = []
    for _ in range(10):
        (loss,) = domain.objective(flow, rows.state, context).values()
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        found.append(float(loss.detach().mean()))
    assert found[-1] < found[0]


def test_what_a_map_cannot_learn_gets_one_line(birds: Path) -> None:
    data = {"source": str(birds), "columns": "id:ignore,kind:class,bearing:angle"}
    with pytest.raises(OptionError, match="numbers alone"):
        Table(data=data, objective={"kind": "normalising_flow"}).flow()
    with pytest.raises(OptionError, match="straight paths"):
        Table(data={"source": "moons"}, objective={"kind": "normalising_flow"}, path={"kind": "vp"})


def test_the_dual_of_a_convex_map_is_measured_and_its_rows_are_drawn() -> None:
    """Before training both potentials are near |x|² / 2, whose dual value is nought, up to what their small softplus
    parts add."""
    data = {"source": "moons", "train": 256, "test": 200, "blur": 0.0}
    domain = Table(data=data, network={"width": 16, "layers": 2}, objective={"kind": "icnn", "inner": 1})
    torch.manual_seed(0)
    flow = domain.flow()
    for _ in range(2):
        losses = domain.objective(flow, domain.sets.train.state, domain.request(256))
        assert set(losses) == {"map", "potential"}
        sum(loss.mean() for loss in losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())
    found = domain.evaluate_flow(flow)
    assert math.isfinite(found["nll"])
    assert math.isnan(found["w2_dual"]) or found["w2_dual"] < 1
    assert flow.sample(domain.request(5), seed=0)["numbers"].isfinite().all()
