"""A run is composed from defaults, a preset and words; it keeps its whole configuration and loses nothing."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fm_science
from fm_science import config
from fm_science.plugins import find
from fm_science.runs import FILE, read_config
from fm_science.storage import load_yaml

from .conftest import ROOT, Command


def test_words_win_over_the_preset_and_the_preset_over_defaults(fm: Command, tmp_path: Path) -> None:
    assert fm("train", "domain=ring", "preset=small", "network.width=4", "seed=7", "run=first").code == 0
    kept = read_config(tmp_path / "first")
    assert kept["version"] == fm_science.__version__
    assert (kept["domain"], kept["preset"], kept["seed"]) == ("ring", "small", 7)
    assert kept["network"]["width"] == 4  # said
    assert kept["data"] == {"points": 64, "radius": 2.0, "batch": 64}  # the preset's points, the others' defaults
    assert kept["trainer"]["max_steps"] == 5
    assert set(kept) >= {*config.engine(), "data", "network", "sample"}


def test_runs_have_a_place_of_their_own(fm: Command, tmp_path: Path) -> None:
    assert fm("train", "domain=ring", "preset=small").code == 0
    (run,) = (tmp_path / "runs" / "ring").iterdir()
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert weights
    flow = fm_science.load(run)
    assert flow.sample(fm_science.Context.full(3), seed=0).shape == (3, 1, 2)


def test_nothing_saved_is_lost(fm: Command, trained: Path) -> None:
    before = {file: file.read_bytes() for file in trained.rglob("*") if file.is_file()}
    done = fm("train", "domain=ring", "preset=small", "run=trained")
    assert done.code == 2
    assert "resume=trained" in done.err
    assert fm("train", "domain=ring", "-m", "data.points=8,16", "run=trained").code == 2
    assert {file: file.read_bytes() for file in trained.rglob("*") if file.is_file()} == before


def test_a_resumed_run_is_the_run_that_was_not_stopped(fm: Command, trained: Path, tmp_path: Path) -> None:
    assert fm("train", "resume=trained", "trainer.max_steps=9", "trainer.progress=false").code == 0
    again = fm("train", "resume=trained", "data.points=9")
    assert (again.code, "data.points" in again.err) == (2, True)
    kept = read_config(trained)
    assert (kept["trainer"]["max_steps"], kept["data"]["points"]) == (9, 64)
    checkpoint = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 9


def test_a_seed_fixes_the_whole_run(fm: Command, tmp_path: Path) -> None:
    words = ["train", "domain=ring", "preset=small", "trainer.progress=false"]
    for run, seed in {"a": 3, "b": 3, "c": 4}.items():
        assert fm(*words, f"run={run}", f"seed={seed}").code == 0
    files = [tmp_path / run / "checkpoints" / "last.ckpt" for run in "abc"]
    a, b, c = (torch.load(file, weights_only=True)["state_dict"] for file in files)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_a_seed_may_be_as_large_as_torch_takes_and_a_larger_one_is_refused_first(fm: Command, tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = ["train", "domain=ring", "preset=small", "trainer.progress=false"]
    done = fm(*words, "run=large", f"seed={2**64 - 1}")
    assert done.code == 0, done.err
    drawn = fm("sample", "large", "seed=5000000000", "n=2", "out=drawn")
    assert drawn.code == 0, drawn.err
    for done in (fm(*words, "run=larger", f"seed={2**64}"), fm("sample", "large", f"seed={2**64}", "out=larger")):
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert f"seed must be a whole number from 0 to {2**64 - 1}" in done.err
        assert not (tmp_path / "larger").exists()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is one")
def test_a_device_that_is_not_there(fm: Command) -> None:
    done = fm("train", "domain=ring", "trainer.accelerator=gpu", "run=gpu")
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_a_sweep_makes_a_folder_a_job(fm: Command, tmp_path: Path) -> None:
    done = fm("train", "-m", "domain=ring", "preset=small", "network.width=4,8", "run=sweep")
    assert done.code == 0, done.err
    assert [read_config(tmp_path / "sweep" / str(k))["network"]["width"] for k in (0, 1)] == [4, 8]


def test_the_configuration_can_be_printed(fm: Command, tmp_path: Path) -> None:
    shown = fm("train", "domain=ring", "data.radius=3", "--cfg", "job")
    assert shown.code == 0
    assert "radius: 3" in shown.out
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(fm: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = fm("train", "domain=ring", "run=file/run")
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_a_failure_is_logged_in_the_run(fm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fm_ring

    monkeypatch.setattr(fm_ring.Perceptron, "forward", lambda *_: 1 / 0)
    done = fm("train", "domain=ring", "run=bad")
    assert done.code == 1
    assert "ZeroDivisionError" in done.err
    assert "bad/error.log" in done.err
    assert done.err.count("Traceback") == 0
    assert "forward" in (tmp_path / "bad" / "error.log").read_text()
    again = fm("train", "domain=ring", "run=bad")  # nothing was learned, so the name is free
    assert (again.code, "ZeroDivisionError" in again.err) == (1, True)
    monkeypatch.setenv("FM_SCIENCE_DEBUG", "1")
    assert "Traceback" in fm("train", "domain=ring", "run=worse").err


@pytest.mark.parametrize("learned", ["metrics.csv", "samples/step-000002/point.csv", "checkpoints/last.ckpt"])
def test_what_a_run_has_learned_keeps_its_name(fm: Command, trained: Path, learned: str) -> None:
    for kept in trained.rglob("*"):
        if kept.is_file() and kept.name != FILE:
            kept.unlink()
    (trained / learned).parent.mkdir(parents=True, exist_ok=True)
    (trained / learned).write_text("kept")
    done = fm("train", "domain=ring", "preset=small", "run=trained")
    assert (done.code, (trained / learned).read_text()) == (2, "kept")
    assert ("resume=trained" in done.err) == (learned == "checkpoints/last.ckpt")
    (trained / learned).unlink()
    assert fm("train", "domain=ring", "preset=small", "run=trained").code == 0


def test_a_configuration_of_something_else_is_kept(fm: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("a: 1\n")
    assert fm("train", "domain=ring", "preset=small", "run=mine").code == 2
    assert (tmp_path / "mine" / "config.yaml").read_text() == "a: 1\n"


@pytest.mark.parametrize("name", ["mölek üle", "run (1)", "it's", "a,b", "back\\slash'", "[x"])
def test_names_need_no_quotes_of_the_grammar(fm: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    done = fm("train", "domain=ring", "preset=small", f"run={name}")
    assert done.code == 0, done.err
    assert (tmp_path / name / "config.yaml").is_file()
    words = shlex.split(done.out.partition("next: ")[2].partition(";")[0])
    assert words == ["fm-science", "sample", name]
    assert fm(*words[1:], "n=1", f"out={name}").code == 0


@pytest.mark.parametrize("file", sorted(config.shipped("configs").glob("preset/*/*.yaml")), ids=lambda file: file.stem)
def test_shipped_presets_hold_only_options_that_exist(file: Path) -> None:
    options = find(file.parent.name).options()
    tree = load_yaml(file)
    groups = {**config.engine(), **options}
    config.check_names(config.names(tree), {"seed": 0, **config.defaults(groups)})
    config.validate(groups, tree)


SMALL = ["train", "domain=ring", "preset=small", "trainer.accelerator=cpu"]


@pytest.mark.slow
def test_two_processes_train_one_run(process: Command, tmp_path: Path) -> None:
    two = ["trainer.devices=2", "trainer.strategy=ddp"]
    done = process(*SMALL, "-m", "network.width=4,8", "run=sweep", *two)
    assert done.code == 0, done.err
    for k in (0, 1):
        assert (tmp_path / "sweep" / str(k) / "checkpoints" / "last.ckpt").is_file()


def test_sharded_weights_need_a_gpu(fm: Command) -> None:
    done = fm(*SMALL, "run=sharded", "trainer.devices=2", "trainer.strategy=fsdp")
    assert (done.code, done.err.count("\n"), "trainer.strategy=ddp" in done.err) == (2, 1, True)


@pytest.mark.slow
def test_a_launcher_of_hydra_runs_jobs_side_by_side(process: Command, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install 'fm-science[sweeps]'")
    words = [*SMALL, "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = process(*words, "network.width=4,8", "run=wide")
    assert done.code == 0, done.err
    assert [read_config(tmp_path / "wide" / str(k))["network"]["width"] for k in (0, 1)] == [4, 8]
    assert process(*SMALL, "-m", "network.width=4,8", "run=again").code == 0
    for k in (0, 1):
        wide, alone = (tmp_path / name / str(k) / "checkpoints" / "last.ckpt" for name in ("wide", "again"))
        a, b = (torch.load(file, weights_only=True)["state_dict"] for file in (wide, alone))
        assert all(torch.equal(a[name], b[name]) for name in b)
    wrong = process(*words, "network.width=4,x", "run=wrong")
    assert wrong.code == 2
    assert "fm-science: network.width='x'" in wrong.err


def test_a_rank_ends_with_the_process_that_started_it() -> None:
    """Its output is a pipe that stays open until it is gone."""
    child = "import time; from fm_science.ranks import end_with_parent; end_with_parent(0.01); print(1, flush=True); "
    parent = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE, "
        "stderr=sys.stderr); p.stdout.readline()"
    )
    words = [sys.executable, "-c", parent, child + "time.sleep(600)"]
    done = subprocess.run(words, capture_output=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
