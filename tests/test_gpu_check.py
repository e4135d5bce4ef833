"""The script that checks a GPU: its comparison runs here on the CPU, and all of it where there is a device."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "tools" / "gpu_check.py"
Main = Callable[[list[str]], int]


@pytest.fixture(scope="module")
def check() -> Main:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    return module.main


def test_single_precision_agrees_with_double(check: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = check(["--device", "cpu", "--only", "agreement", "--out", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row for row in found if not row["ok"]] == []
    assert code == 0
    rooms = {row["name"].partition(" ")[0] for row in found}
    assert rooms == {"space", "prior", "path", "solver", "density", "coupling"}
    assert len(found) > 100
    assert f"{len(found)} of {len(found)} checks passed" in capsys.readouterr().out


def test_two_steps_of_training(check: Main, tmp_path: Path) -> None:
    words = ["--device", "cpu", "--domains", "table", "--only", "training", "--out", str(tmp_path / "out.json")]
    assert check(words) == 0
    found = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["name"] for row in found] == ["table 32-true", "table bf16-mixed"]


@pytest.mark.slow
def test_the_speed_of_steps(check: Main, tmp_path: Path) -> None:
    words = ["--device", "cpu", "--domains", "point_cloud", "--steps", "1", "--out", str(tmp_path / "out.json")]
    assert check([*words, "--only", "speed"]) == 0
    (found,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert found["waits_a_step"] >= 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(check: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([]) == 2
    assert "there is no CUDA device here: nothing was checked" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.slow
def test_a_device_passes_all_checks(check: Main, tmp_path: Path) -> None:
    assert check(["--out", str(tmp_path / "out.json")]) == 0
