"""Samples depend on their seed and number alone; a run is judged beside held-out data and an untrained network."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fm_science.commands import sample

from .conftest import Command


def contents(folder: Path, pattern: str = "point_*.csv") -> list[str]:
    return [file.read_text() for file in sorted(folder.glob(pattern))]


def numbers(folder: Path) -> list[float]:
    return [float(word) for text in contents(folder) for word in text.split(",")]


@pytest.mark.usefixtures("trained")
def test_samples_depend_on_their_seed_and_number_alone(fm: Command, tmp_path: Path) -> None:
    for out, words in {"one": ["n=5", "batch=5"], "two": ["n=5", "batch=5"], "more": ["n=7", "batch=2"],
                       "part": ["n=2", "first=3"], "other": ["n=5", "seed=4"]}.items():  # fmt: skip
        assert fm("sample", "trained", "seed=3", f"out={out}", "steps=4", *words).code == 0
    assert len(set(contents(tmp_path / "one"))) == 5
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert numbers(tmp_path / "more")[:10] == pytest.approx(numbers(tmp_path / "one"), rel=1e-4)
    assert numbers(tmp_path / "part") == pytest.approx(numbers(tmp_path / "one")[6:], rel=1e-4)
    assert (tmp_path / "part" / "point_0004.csv").is_file()
    assert not set(contents(tmp_path / "one")) & set(contents(tmp_path / "other"))


def test_sampling_again_replaces_what_sampling_wrote_and_nothing_else(fm: Command, trained: Path) -> None:
    assert fm("sample", "trained", "n=4", "trajectory=true").code == 0
    (trained / "samples" / "mine.txt").write_text("kept")
    assert len(contents(trained / "samples", "way_*")) == 4
    assert len(contents(trained / "samples", "way_*")[0].splitlines()) == 21  # the noise, and every step of 20
    assert fm("sample", "trained", "n=2").code == 0
    assert len(contents(trained / "samples")) == 2
    assert contents(trained / "samples", "way_*") == []
    assert contents(trained / "samples", "mine.txt") == ["kept"]


WRONG = ["n=0", "n=few", "steps=0", "batch=0", "solver=huen", "solver=flow_map", "spred=1", "spread=-1", "seed=-1",
         "solver=eulermaruyama", "device=gpu", "out=trained/config.yaml/x"]  # fmt: skip


@pytest.mark.parametrize("word", WRONG)
@pytest.mark.usefixtures("trained")
def test_what_cannot_be_sampled(fm: Command, word: str) -> None:
    done = fm("sample", "trained", word)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "did you mean" in done.err or word.partition("=")[0] in done.err or "cannot write" in done.err


def test_variants_of_files_start_from_them(fm: Command, tmp_path: Path) -> None:
    np.savez(tmp_path / "clouds.npz", x=np.random.default_rng(0).normal(size=(20, 4, 2)))
    small = ["network.width=8", "network.layers=1", "data.batch=4", "trainer.max_steps=2", "trainer.progress=false"]
    done = fm("train", "domain=point_cloud", "data.source=clouds.npz", "run=clouds", *small)
    assert done.code == 0, done.err
    np.savez(tmp_path / "mine.npz", x=10.0 + np.random.default_rng(1).normal(size=(2, 4, 2)))
    done = fm("sample", "clouds", "from=mine.npz", "noise=0.01", "n=4", "steps=200", "out=near")
    assert done.code == 0, done.err
    with np.load(tmp_path / "near" / "clouds_000000-000003.npz") as kept, np.load(tmp_path / "mine.npz") as given:
        found, wanted = kept[kept.files[0]].reshape(4, 4, 2), np.tile(given["x"], (2, 1, 1))
    assert np.abs(found - wanted).max() < 0.5
    assert np.abs(found[0] - found[2]).max() > 1e-4
    for words in (["noise=0.3"], ["from=mine.npz", "noise=0"], ["from=mine.npz", "noise=0.2", "from_time=0.8"],
                  ["from=mine.npz", "from_time=1"], ["from=nowhere.npz"], ["from=mine.npz", "noise=much"]):  # fmt: skip
        done = fm("sample", "clouds", *words)
        assert (done.code, done.err.count("\n")) == (2, 1), words


@pytest.mark.usefixtures("trained")
def test_a_domain_that_encodes_no_objects_makes_no_variants(fm: Command, tmp_path: Path) -> None:
    (tmp_path / "point.csv").write_text("3,4")
    done = fm("sample", "trained", "from=point.csv")
    assert (done.code, done.err.count("\n"), "makes no variants" in done.err) == (2, 1, True)


@pytest.fixture
def tied(fm: Command, tmp_path: Path) -> Path:
    """A run whose coupling ties noise to data."""
    np.savez(tmp_path / "clouds.npz", x=np.random.default_rng(0).normal(size=(20, 4, 2)))
    small = ["network.width=8", "network.layers=1", "data.batch=4", "trainer.max_steps=2", "trainer.progress=false"]
    done = fm("train", "domain=point_cloud", "data.source=clouds.npz", "coupling.kind=ot", "run=tied", *small)
    assert done.code == 0, done.err
    return tmp_path / "tied"


@pytest.mark.parametrize("solver", ["langevin", "churn", "predictorcorrector"])
@pytest.mark.parametrize("command", ["sample", "evaluate"])
@pytest.mark.usefixtures("tied")
def test_a_solver_that_does_not_fit_the_coupling_is_refused(fm: Command, command: str, solver: str) -> None:
    done = fm(command, "tied", "n=2", f"solver={solver}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"solver={solver} does not fit this run" in done.err
    assert "coupling" in done.err


def test_samples_of_validations_are_not_measured(fm: Command, tied: Path) -> None:
    assert fm("sample", "tied", "n=3").code == 0
    shutil.copytree(tied / "samples", tied / "samples" / "step-000002")
    assert fm("evaluate", "tied/samples", "domain=point_cloud", "data.source=clouds.npz").code == 0
    assert float(rows(tied.parent / "report" / "metrics.csv")["samples"]["n"]) == 3


def test_a_run_without_checkpoint(fm: Command, trained: Path) -> None:
    (trained / "checkpoints" / "last.ckpt").unlink()
    for command in ("sample", "evaluate"):
        done = fm(command, "trained")
        assert (done.code, "checkpoint" in done.err, done.err.count("\n")) == (2, True, 1)


def rows(file: Path) -> dict[str, dict[str, str]]:
    with file.open(newline="") as lines:
        return {row.pop("row"): row for row in csv.DictReader(lines)}


def test_evaluate_tells_training_from_none(fm: Command, trained: Path) -> None:
    assert fm("sample", "trained", "n=6").code == 0
    shown = fm("evaluate", "trained")
    assert shown.code == 0, shown.err
    assert "6 samples in trained/samples" in shown.out
    found = rows(trained / "report" / "metrics.csv")
    assert list(found) == ["samples", "held-out", "untrained network"]
    assert [row["n"] for row in found.values()] == ["6", "64", "6"]
    assert float(found["held-out"]["radius"]) == pytest.approx(2.0, rel=1e-6)
    assert found["samples"]["radius"] != found["untrained network"]["radius"]


@pytest.mark.usefixtures("trained")
def test_an_untrained_network_that_leaves_for_infinity_has_no_row(
    fm: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = sample.restore

    def wild(source, tree, trained=True):
        flow = restore(source, tree, trained)
        for weight in [] if trained else flow.parameters():
            torch.nn.init.constant_(weight, float("inf"))
        return flow

    monkeypatch.setattr(sample, "restore", wild)
    shown = fm("evaluate", "trained", "n=4")
    assert (shown.code, len(shown.err.strip().splitlines())) == (0, 1), shown.err
    assert "the untrained network has no row" in shown.err
    assert list(rows(trained / "report" / "metrics.csv")) == ["samples", "held-out"]
    assert json.loads((trained / "report" / "metrics.json").read_text())["held-out"]["error"] == 0
    assert (trained / "report" / "points.png").is_file()


@pytest.mark.usefixtures("trained")
def test_evaluate_draws_when_asked(fm: Command, tmp_path: Path) -> None:
    assert fm("evaluate", "trained", "n=3", "steps=2", "untrained=false", "out=here").code == 0
    assert list(rows(tmp_path / "here" / "metrics.csv")) == ["samples", "held-out"]


def test_evaluate_reads_files(fm: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    empty = fm("evaluate", "mine", "domain=ring")
    assert (empty.code, "no points" in empty.err) == (2, True)
    (tmp_path / "mine" / "point.csv").write_text("3,4")
    assert fm("evaluate", "mine", "domain=ring").code == 0
    assert rows(tmp_path / "report" / "metrics.csv")["samples"]["radius"] == "5.0"
    (tmp_path / "mine" / "broken.csv").write_text("three")
    broken = fm("evaluate", "mine/broken.csv", "domain=ring")
    assert (broken.code, "broken.csv" in broken.err) == (2, True)


def test_info_sums_up_a_run(fm: Command, trained: Path) -> None:
    shown = fm("info", "trained")
    assert "domain ring, preset small, seed 0" in shown.out
    assert "last.ckpt" in shown.out
    assert "status: done at step 5" in shown.out
    assert "start at step 0, seed 0, on " in shown.out
    assert "torch" in fm("info").out
