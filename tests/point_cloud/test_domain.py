"""The domain keeps its promises, for systems, for energies of the user's own, and for files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fm_science.data import train_loader
from fm_science.errors import OptionError, UserError
from fm_science.solvers import FlowMap
from fm_science.state import Context
from fm_science.testing import check_domain
from fm_science_domains.point_cloud import build
from fm_science_domains.point_cloud.data import Data, load
from fm_science_domains.point_cloud.systems import named

SMALL = {"width": 12, "layers": 2, "bumps": 6}
FEW = {"train": 300, "held_out": 100, "effort": 0.1}


def trap(x: torch.Tensor) -> torch.Tensor:
    """Particles that repel each other in a trap."""
    far = torch.cdist(x, x).square() + 1
    return (0.5 * (x - x.mean(1, keepdim=True)).square().sum((1, 2))) + (1 / far).sum((1, 2))


def scalar(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum()


def detached(x: torch.Tensor) -> torch.Tensor:
    return trap(x).detach()


def plain(x: torch.Tensor) -> list[float]:
    return trap(x).tolist()


def endless(x: torch.Tensor) -> torch.Tensor:
    return trap(x) / 0


@pytest.mark.parametrize("kind", ["independent", "ot", "ot_aligned", "equivariant_ot"])
def test_a_system_of_ones_own(tmp_path: Path, kind: str) -> None:
    data = {"source": f"{__name__}:trap", "points": 3, "dim": 3, "cache": str(tmp_path / "cache"), **FEW}
    domain = build(data=data, network=SMALL, coupling={"kind": kind}, metrics={"clouds": 50})
    if kind == "ot":
        check_domain(domain)
        few = build(data=data, network=SMALL, metrics={"likelihood": 8, "weighted": 8, "steps": 3})
        numbers = few.evaluate_flow(few.flow().eval(), tmp_path)
        assert (tmp_path / "weighted.png").stat().st_size > 10_000
        assert {"nll", "nll_unnormalised", "ess", "log_z", "path_length"} <= set(numbers)
        assert "nll_floor" not in numbers  # nothing is known of this system
        (tmp_path / "run").mkdir()
        assert "virial" in domain.write_provenance(tmp_path / "run")[0].read_text()
    context = Context.full(5, 3)
    x1 = torch.randn(5, 3, 3)
    x0 = domain.flow().noise(context)
    paired, same, _ = domain.objective.coupling.pair(domain.path.space.bind(context), x0, x1, context)  # type: ignore
    assert torch.equal(same, x1)
    assert (paired - x1).square().sum() <= (x0 - x1).square().sum() + 1e-4


def test_pairs_made_in_data_workers_are_those_made_in_place(tmp_path: Path) -> None:
    data = {"source": f"{__name__}:trap", "points": 3, "dim": 3, "cache": str(tmp_path), "batch": 8, **FEW}
    found = []
    for workers in (0, 1):
        coupling = {"kind": "equivariant_ot", "group": 4, "in_workers": True}
        domain = build(data={**data, "workers": workers}, network=SMALL, coupling=coupling)
        prepare = domain.objective.coupling.preparation(domain.path.space, domain.prior)
        loader = train_loader(domain.data, domain.path.space, 0, lambda: 0, 0, 1, prepare)
        found.append(next(iter(loader)))
    (x1, context, x0), (again, _, noise) = found
    assert torch.equal(x1, again)
    assert torch.equal(x0, noise)
    losses = domain.objective(domain.flow(), x1, context, x0)
    assert losses["loss"].isfinite().all()
    alone = domain.prior.sample(domain.path.space.bind(context), context)
    assert (x0 - x1).square().sum() < (alone - x1).square().sum()


@pytest.mark.parametrize("law", ["lagrangian", "mean_flow", "semigroup"])
def test_a_flow_map_of_clouds(tmp_path: Path, law: str) -> None:
    data = {"source": f"{__name__}:trap", "points": 3, "dim": 3, "cache": str(tmp_path / "cache"), **FEW}
    domain = build(data=data, network=SMALL, objective={"kind": "flow_map", "law": law}, metrics={"clouds": 50})
    check_domain(domain)
    flow = domain.flow()
    assert set(domain.objective(flow, torch.randn(5, 3, 3), Context.full(5, 3))) == {"loss", "map"}
    assert flow.sample(domain.request(4), FlowMap(), 1, seed=0).shape == (4, 3, 3)


def test_clouds_of_a_file_may_differ_in_size(tmp_path: Path) -> None:
    sizes = np.array([3, 5, 4, 3] * 5)
    x = torch.randn(int(sizes.sum()), 2, generator=torch.Generator().manual_seed(0)).numpy()
    np.savez(tmp_path / "clouds.npz", x=7 * x, sizes=sizes)
    domain = build(data={"source": str(tmp_path / "clouds.npz"), "batch": 4}, network=SMALL)
    assert "energy" not in domain.metrics
    assert domain.prior.std == pytest.approx(7, rel=0.3)  # type: ignore[attr-defined]
    check_domain(domain)
    assert domain.request(3, points=6).mask.shape == (3, 6)
    frames = [domain.decode(torch.randn(2, 4, 2), Context.full(2, 4)) for _ in range(3)]
    assert all(f.is_file() for f in domain.trajectory(frames, tmp_path))


def test_a_folder_in_the_working_directory_needs_no_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("clouds", "dw4"):
        Path(name).mkdir()
        np.save(f"{name}/ignored.npy", np.zeros(3))
        np.savez(f"{name}/some.npz", x=np.random.default_rng(0).normal(size=(20, 5, 3)))
    assert len(load(Data("clouds")).train) == 18
    assert named("dw4", 1.0, 4, 2) is not None  # names of systems win


def test_labels_in_files_are_classes(tmp_path: Path) -> None:
    width = np.array([1, 9] * 10)[:, None, None]
    x = width * np.random.default_rng(0).normal(size=(20, 5, 3))
    np.savez(tmp_path / "a.npz", x=x, labels=["torus", "box"] * 10)
    sets = load(Data(str(tmp_path / "a.npz")))
    assert sets.classes == ("box", "torus")
    for cloud in (*sets.train.decoded(18), *sets.held_out.decoded(2)):
        assert (cloud.label == "box") == (float(cloud.points.std()) > 3)
    np.savez(tmp_path / "a.npz", x=x, labels=["torus", ""] * 10)
    assert load(Data(str(tmp_path / "a.npz"))).classes == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def energy(x):\n    return (\n", r"SyntaxError in .*bad_0.py, line 2"),
        ("a = 1\nb = a / 0\n", r"bad_1.py, line 2"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    name = "bad_0" if "def" in text else "bad_1"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=words):
        load(Data(f"{name}:energy"))


def test_an_energy_for_the_clouds_of_a_file_is_tried_on_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(20, 5, 3)))
    with pytest.raises(UserError, match=r"data.energy=.*:scalar gives \(\) for clouds \(1, 5, 3\)"):
        load(Data(str(tmp_path / "a.npz"), energy=f"{__name__}:scalar"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"source": "shapes", "families": "torus,bax"}, "did you mean 'box'"),
        ({"source": "dw5"}, "did you mean 'dw4'"),
        ({"source": "nothing:energy"}, "no energy at"),
        ({"source": f"{__name__}:FEW"}, "is dict, not a function"),
        ({"source": "nothing.npz"}, "no file or folder"),
        ({"source": f"{__name__}:nothing"}, "has no 'nothing'"),
        ({"source": f"{__name__}:scalar"}, r"gives \(\) for clouds \(64, 4, 2\). An energy must return one number"),
        ({"source": f"{__name__}:detached"}, "does not require grad.* An energy must return"),
        ({"source": f"{__name__}:plain"}, "'list' object.* An energy must return"),
        ({"source": f"{__name__}:endless"}, "no finite number"),
        ({"batch": 0}, "at least 1"),
    ],
)
def test_mistakes_are_told_in_one_line(data: dict, words: str) -> None:
    with pytest.raises((UserError, OptionError), match=words):
        _ = build(data=data).data
