"""The domain keeps its promises: on grids of one, two and three axes, on scattered sensors, and for files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fm_science.errors import OptionError, UserError
from fm_science.testing import check_domain
from fm_science_domains.function import build
from fm_science_domains.function.data import Data, load
from tests.use import use

FEW = {"train": 24, "held_out": 12, "batch": 8}
SMALL = {"width": 8, "layers": 2, "modes": 3, "heads": 2, "tokens": 4, "waves": 3}
QUICK = {"sweep": 8}

CASES = {
    "line": {"data": {**FEW, "grid": 16}},
    "circle": {"data": {**FEW, "grid": 16, "periodic": True, "kernel": "rbf"}, "path": {"predicts": "velocity"}},
    "plane": {"data": {**FEW, "source": "heat", "grid": "8x9"}},
    "space": {"data": {**FEW, "dim": 3, "grid": 5}},
    "scattered": {"data": {**FEW, "sensors": 12}},
    "scattered plane": {"data": {**FEW, "source": "stokes", "sensors": 20}},
    "two channels": {"data": {**FEW, "source": "darcy", "grid": 9}},
    "shown": {"data": {**FEW, "grid": 16}, "objective": {"shown": "1-5"}},
    "white noise": {"data": {**FEW, "grid": 16}, "path": {"noise": "white"}, "coupling": {"kind": "independent"}},
}


@pytest.mark.parametrize("name", CASES)
def test_the_domain_keeps_its_promises(name: str, tmp_path: Path) -> None:
    given = {k: dict(v) for k, v in CASES[name].items()}
    given["data"]["cache"] = str(tmp_path)
    domain = build(**given, network=SMALL, metrics=QUICK)
    check_domain(domain)
    if name == "line":
        found = domain.evaluate_flow(domain.flow().eval(), tmp_path)
        assert (tmp_path / "resolutions.png").stat().st_size > 10_000
        assert {"variance_ratio_4x", "spectrum_error_2x", "beyond_nyquist_4x"} <= set(found)
        frames = [domain.decode(torch.randn(2, 16, 1), domain.request(2)) for _ in range(3)]
        assert all(f.is_file() for f in domain.trajectory(frames, tmp_path / "t"))
        assert len(domain.per_sample_metrics(frames[0])) == 2


def test_completions_are_scored_and_drawn(tmp_path: Path) -> None:
    given = CASES["shown"] | {"network": SMALL, "metrics": {"sweep": 0, "completions": 2}}
    domain = build(**given)
    found = domain.evaluate_flow(domain.flow().eval(), tmp_path)
    assert {"completion_smse", "completion_coverage"} <= set(found)
    assert (tmp_path / "completions.png").stat().st_size > 10_000


def test_finer_grids_contain_the_coarse_one() -> None:
    for periodic in (False, True):
        domain = build(data={**FEW, "grid": 9, "periodic": periodic}, network=SMALL)
        coarse, fine = domain.request(1), domain.request(2, grid="4x")
        assert fine.mask.shape == (2, 36 if periodic else 33)
        torch.testing.assert_close(fine.cond["coords"][0, ::4], coarse.cond["coords"][0])
        assert domain.request(1, grid=20).mask.shape == (1, 20)


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    days, generator = np.arange(1, 31), np.random.default_rng(0)
    heat = 15 + 10 * np.sin(days / 5) + generator.normal(size=(40, 1)) + 0.1 * generator.normal(size=(40, 30))
    np.savez(tmp_path / "stations.npz", temperature=heat, day=days)
    data = {"source": str(tmp_path / "stations.npz"), "array": "temperature", "axis": "day", "batch": 8}
    domain = build(data=data, network=SMALL)
    check_domain(domain)
    x = domain.decode(domain.flow().sample(domain.request(3), steps=2, seed=0), domain.request(3))
    assert x[0].coords[:, 0].tolist() == pytest.approx(days.tolist(), abs=1e-4)
    assert abs(float(x[0].values.mean()) - 15) < 10  # in degrees again


def test_missing_values_make_sensors_of_their_own(tmp_path: Path) -> None:
    x = np.sin(np.linspace(0, 3, 20) + np.arange(30)[:, None])
    x[::3, 4] = np.nan
    np.savez(tmp_path / "holes.npz", x=x)
    dropped = build(data={"source": str(tmp_path / "holes.npz"), "share": 0.0}, network=SMALL)
    assert len(dropped.data.train) == 20
    kept = build(data={"source": str(tmp_path / "holes.npz"), "missing": "keep", "share": 0.0}, network=SMALL)
    assert sorted(set(kept.data.train.sizes.tolist())) == [19, 20]
    check_domain(kept)


@pytest.mark.parametrize(("n", "share", "validation"), [(4, 0.1, 1), (2, 0.9, 1), (1, 0.1, 1), (4, 0.0, 4)])
def test_few_functions_are_held_out_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, n: int, share: float, validation: int
) -> None:
    np.savez(tmp_path / "few.npz", values=np.sin(np.arange(n)[:, None] + np.linspace(0, 3, 8)))
    found = load(Data(source=str(tmp_path / "few.npz"), share=share))
    assert len(found.held_out) == validation
    apart = {f.name for f in found.train.functions}.isdisjoint(f.name for f in found.held_out.functions)
    assert apart == (validation < n)
    assert ("one function" in caplog.text) == (n == 1)


def test_functions_of_another_kind_are_not_compared(tmp_path: Path) -> None:
    np.savez(tmp_path / "line.npz", values=np.random.default_rng(0).normal(size=(6, 8)))
    np.savez(tmp_path / "plane.npz", values=np.zeros((3, 4, 4, 2)), channels=2)
    domain = build(data={"source": str(tmp_path / "line.npz")}, network=SMALL)
    assert len(domain.read([tmp_path / "line.npz"])) == 6
    with pytest.raises(UserError, match=r"has 2 values at a sensor of 2 coordinates; .* have 1 and 1"):
        domain.read([tmp_path / "plane.npz"])


def test_observations_are_met_in_every_way(tmp_path: Path) -> None:
    (tmp_path / "seen.csv").write_text("x,value\n0.2,1.0\n0.8,-1.0\n", encoding="utf-8-sig")
    seen = str(tmp_path / "seen.csv")
    data = {**FEW, "grid": 16}
    for method, shown in (("correction", "0"), ("latent", "0"), ("amortised", "1-4"), ("auto", "1-4")):
        sample = {"observations": seen, "method": method, "moves": 2}
        domain = build(data=data, network=SMALL, sample=sample, objective={"shown": shown})
        context = domain.request(3)
        assert context.cond["seen"].sum(1).tolist() == [2, 2, 2]
        x = domain.flow().sample(context, steps=2, seed=0)
        assert bool(x.isfinite().all())
        if method == "correction":
            assert torch.equal(x[:, 3], context.cond["shown"][:, 3])
    check_domain(domain)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"data": {"source": "gpp"}}, "did you mean 'gp'"),
        ({"data": {"source": "nothing.npz"}}, "no file or folder"),
        ({"data": {"grid": "4x4x4x4"}}, "4 axes"),
        ({"data": {"grid": "many"}}, "sensors of each axis"),
        ({"data": {"source": "burgers", "sensors": 9}}, "whole grids"),
        ({"data": {"sensors": 9}, "network": {"kind": "fno"}}, "regular grids"),
        ({"network": {"kind": "operator", "width": 9}}, "no multiple"),
        ({"objective": {"shown": "5-2"}}, "such as 5 or 1-10"),
        ({"objective": {"shown": "1-5"}, "coupling": {"kind": "ot"}}, "do not go together"),
        ({"data": {"sensors": 9}, "coupling": {"norm": "kernel"}}, "share their sensors"),
        (
            {"objective": {"shown": "1-5"}, "sample": {"observations": "x.csv", "method": "latent"}},
            "samples free noise",
        ),
        ({"sample": {"grid": "0x"}}, "a factor such as 4x"),
        ({"sample": {"observations": "nothing.csv"}}, "no file of observations"),
        ({"sample": {"method": "latent"}}, "give observations=FILE.csv too"),
    ],
)
def test_mistakes_are_told_in_one_line(groups: dict, words: str) -> None:
    groups["data"] = {**FEW, **groups.get("data", {})}
    with pytest.raises((UserError, OptionError), match=words):
        use(build(**groups))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,value\n0.2,1\n7,2\n", "outside the domain"),
        ("x,value\n0.2,1\n0.201,2\n", "fall on one sensor"),
        ("place,value\n0.2,1\n", "must name the columns"),
        ("x,y,value\n0.2,1,2\n", "have 1 and 1"),
    ],
)
def test_observations_that_do_not_fit_say_why(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "seen.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        use(build(data={**FEW, "grid": 16}, network=SMALL, sample={"observations": str(tmp_path / "seen.csv")}))


@pytest.mark.parametrize("name", ["quick", "complete", "burgers", "darcy", "published", "scattered", "weather"])
def test_presets_are_understood(name: str, tmp_path: Path) -> None:
    from fm_science import config
    from fm_science.plugins import find

    plugin = find("function")
    groups = plugin.options()
    tree = config.preset(plugin, name, {**config.defaults(config.engine()), **config.defaults(groups)})
    config.validate(config.engine(), tree)
    tree["data"] = {**tree["data"], **FEW, "cache": str(tmp_path)}
    if name == "weather":
        np.savez(tmp_path / "w.npz", x=np.random.default_rng(0).normal(size=(9, 30)), t=np.arange(30))
        tree["data"]["source"] = str(tmp_path / "w.npz")
    if name == "darcy":
        tree["data"]["grid"] = 9
    build(**{k: v for k, v in tree.items() if k in groups})


@pytest.mark.parametrize(("nu", "length"), [(0.5, 0.1), (1.5, 0.2), (2.5, 0.2)])
def test_the_noise_is_as_rough_as_the_data(nu: float, length: float) -> None:
    data = {**FEW, "train": 100, "grid": 65, "nu": nu, "length": length}
    kernel = build(data=data, network=SMALL).prior.kernel  # type: ignore[attr-defined]
    assert (kernel.nu, kernel.length) == (nu, length)
    white = build(data={**data, "nu": 0.5, "length": 0.001}, network=SMALL).prior.kernel  # type: ignore[attr-defined]
    assert (white.nu, white.length) == (0.5, 0.01)  # the roughest there is
