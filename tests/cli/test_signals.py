"""Exit codes tell the truth when a process is stopped, and the same command, or resume, goes on from there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fm_science import ranks
from fm_science.cli import main
from fm_science.commands.delivery import Delivery
from fm_science.locks import lock_holder
from fm_science.samples import read_record

from .conftest import ROOT, Command

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(site: Path, tmp_path: Path) -> Start:
    """A command in a process of its own, whose end is not awaited."""
    path = os.pathsep.join([str(site), str(ROOT), str(ROOT / "domains")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def run(*words: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "fm_science", *words], cwd=tmp_path, env={**environment, **more}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return run


def wait_for(there: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    """Wait until something is there, while the process lives."""
    while not there():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


LONG = ["domain=ring", "preset=small", "run=run", "trainer.max_steps=1000000", "trainer.validate_every=1000000",
        "trainer.checkpoint_every=1000000", "trainer.log_every=1", "trainer.validation_samples=0"]  # fmt: skip


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_is_stopped_saves_and_says_how_to_resume(
    start: Start, fm: Command, tmp_path: Path, signum: int, code: int
) -> None:  # fmt: skip
    process = start("train", *LONG)
    wait_for((tmp_path / "run" / "metrics.csv").is_file, process)
    process.send_signal(signum)
    out, err = process.communicate()
    assert process.returncode == code, err
    last = err.strip().splitlines()[-1]
    assert "resume: fm-science train resume=run" in last
    assert "Traceback" not in err
    assert "ring: 64 to train on" in out
    step = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert f"saved at step {step} of 1000000 in run" in last
    done = fm("train", "resume=run", f"trainer.max_steps={step + 2}")
    assert done.code == 0, done.err


def test_before_the_first_step_there_is_nothing_to_resume(start: Start, tmp_path: Path) -> None:
    process = start("train", *LONG)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("training: domain ring")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143, err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (RuntimeError("x"), 1), (SystemExit(3), 3)])
def test_every_ending_has_its_code(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    def end(*_: object) -> None:
        raise error

    monkeypatch.setattr("fm_science.commands.domains.main", end)
    if isinstance(error, SystemExit):
        with pytest.raises(SystemExit):
            main(["domains"])
    else:
        assert main(["domains"]) == code
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("fm_science.commands.domains.main", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["domains"]) == 143
    assert signal.getsignal(signal.SIGTERM) is before


# ------------------------------------------------------------------------------------------------------ sampling


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(folder.glob("point_*.csv"))}


@pytest.mark.usefixtures("trained")
def test_a_sampling_that_is_stopped_goes_on_and_leaves_the_old_samples_until_it_is_done(
    fm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ["sample", "trained", "n=7", "batch=2", "seed=5", "steps=2"]
    assert fm(*whole, "out=whole").code == 0
    assert fm("sample", "trained", "n=3", "steps=2", "out=here").code == 0
    old = contents(tmp_path / "here")
    keep, calls = Delivery.keep, []

    def stop(self: Delivery, *words: object) -> None:
        calls.append(self.made)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        keep(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(Delivery, "keep", stop)
    stopped = fm(*whole, "out=here")
    assert stopped.code == 143
    assert "resume" in stopped.err
    assert contents(tmp_path / "here") == old
    assert (tmp_path / "here" / ".part" / "point_0004.csv").is_file(), "half a chunk"
    calls.clear()
    done = fm(*whole, "out=here")
    assert done.code == 0, done.err
    assert "resuming after 4 samples" in done.out
    assert calls == [4, 6]
    assert contents(tmp_path / "here") == contents(tmp_path / "whole")
    assert not (tmp_path / "here" / ".part").exists()
    assert read_record(tmp_path / "here" / "sampling.yaml")["files"] == sorted(contents(tmp_path / "whole"))


def test_files_that_grow_are_cut_back_to_their_last_whole_chunk(tmp_path: Path) -> None:
    place = Delivery(tmp_path, {"n": 4})
    file = place.folder / "samples.sdf"
    for k in range(2):
        with file.open("a") as stream:
            stream.write(f"sample {k}\n")
        place.keep(1, [file])
    with file.open("a") as stream:
        stream.write("sam")
    (place.folder / "stray").touch()
    with (place.folder / "chunks.jsonl").open("a") as stream:
        stream.write('{"n": 1, "fi')
    again = Delivery(tmp_path, {"n": 4})
    assert (again.made, file.read_text()) == (2, "sample 0\nsample 1\n")
    assert not (place.folder / "stray").exists()
    again.keep(1, [file])
    lines = (place.folder / "chunks.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == [1, 1, 1]
    assert Delivery(tmp_path, {"n": 5}).made == 0, "another request begins anew"


# --------------------------------------------------------------------------------------------------------- ranks

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_PROCID": "1",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({}, (0, False)), (TORCHRUN, (1, True)), (SRUN, (1, True)),
        ({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, (0, False)),
        ({"RANK": "1"}, (0, False)), ({"LOCAL_RANK": "3"}, (0, False)), ({"SLURM_PROCID": "2"}, (0, False)),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, (0, False)), ({**TORCHRUN, "RANK": "5"}, (0, False)),
        ({**TORCHRUN, "RANK": "x"}, (0, False)), ({**TORCHRUN, "LOCAL_RANK": "7"}, (0, False)),
        ({**SRUN, "SLURM_PROCID": "4"}, (0, False)), ({**TORCHRUN, "MASTER_PORT": ""}, (0, False)),
    ],
)  # fmt: skip
def test_a_rank_counts_only_where_a_whole_launcher_agrees(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], place: tuple[int, bool]
) -> None:
    for name in (*ranks.ALONE, *TORCHRUN, *SRUN):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert (ranks.rank(), ranks.launched()) == place
    with ranks.settled():
        seen = {name for name in ranks.ALONE if name in os.environ}
        assert seen == (
            {name for name in env if name in ranks.ALONE} if place[1] or env.get("WORLD_SIZE") == "1" else set()
        )
    assert {name: os.environ[name] for name in env} == env


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_a_stray_rank_changes_nothing_but_a_line(
    fm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    done = fm("train", "domain=ring", "preset=small", "run=run", "trainer.validation_samples=0", "trainer.max_steps=1")
    assert done.code == 0
    assert f"ignoring {name} from the environment" in done.err
    assert (tmp_path / "run" / "config.yaml").is_file()
    assert (tmp_path / "run" / "metrics.csv").is_file()
    before = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    assert fm("train", "domain=ring", "preset=small", "run=run").code == 2
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_job_that_slurm_starts_again_resumes(fm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train", "domain=ring", "preset=small", "run=run", "trainer.validation_samples=0", "trainer.max_steps=1"]
    assert fm(*words).code == 0
    assert fm(*words).code == 2
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    again = fm(*words)
    assert again.code == 0, again.err
    assert "resuming run" in again.out


def test_a_preset_is_chosen_and_said_where_none_is_named(fm: Command) -> None:
    shown = fm("train", "domain=point_cloud", "--cfg", "job")
    assert shown.code == 0, shown.err
    assert "preset=quick, since none was named" in shown.out
    assert "\npreset: quick\n" in shown.out
    assert "preset: null" in fm("train", "domain=point_cloud", "preset=null", "--cfg", "job").out


def test_threads_do_not_spin_unless_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    main(["--version"])
    assert os.environ.pop("OMP_WAIT_POLICY") == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    main(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_a_second_training_in_the_same_folder_is_refused(fm: Command, trained: Path) -> None:
    holding = "import sys, pathlib, fm_science.locks as l\nwith l.locked(pathlib.Path('trained')): sys.stdin.read(1)"
    process = subprocess.Popen([sys.executable, "-c", holding], cwd=trained.parent, stdin=subprocess.PIPE)
    wait_for(lambda: lock_holder(trained) is not None, process)
    before = (trained / "config.yaml").read_bytes()
    refused = fm("train", "resume=trained", "trainer.max_steps=7")
    process.communicate(b"x")
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert f"process {process.pid}" in refused.err
    assert (trained / "config.yaml").read_bytes() == before
