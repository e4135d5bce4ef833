"""Self-consistency, with predictors whose answers are known."""

from __future__ import annotations

import sys
import types
from math import cos, sin

import pytest
import torch

from fm_science.errors import UserError
from fm_science_domains.protein import mpnn, predictors
from fm_science_domains.protein.chains import backbones
from fm_science_domains.protein.files import write_pdb
from fm_science_domains.protein.metrics import Metrics, metrics


@pytest.fixture
def native():
    return backbones(True)[3]


@pytest.fixture
def designed(monkeypatch):
    """Sequences without a network."""
    monkeypatch.setattr(predictors, "design", lambda b, n: [mpnn.Design("A" * len(b), 0.0)] * n)


def test_superposition_undoes_rotation_and_translation_and_not_reflection(native):
    turn = torch.tensor([[cos(1.0), -sin(1.0), 0], [sin(1.0), cos(1.0), 0], [0, 0, 1]])
    assert predictors.rmsd(native.ca, native.ca @ turn.T + 5) < 1e-3
    assert predictors.rmsd(native.ca, native.ca * torch.tensor([-1.0, 1, 1])) > 2
    line = torch.tensor([[-1.0, 0, 0], [0, 0, 0], [1.0, 0, 0]])
    assert predictors.rmsd(line, 2 * line) == pytest.approx((2 / 3) ** 0.5)


def test_the_nearest_of_several_structures_counts(native, designed):
    far = native.ca * 1.5
    found = predictors.consistency(native, lambda sequences: [far, native.ca + 3, far], 3)
    assert found["sc_rmsd"] == pytest.approx(0, abs=1e-3)
    assert found["sc_tm"] == pytest.approx(1, abs=1e-3)
    with pytest.raises(UserError, match="1 structures for 3"):
        predictors.consistency(native, lambda sequences: [far], 3)
    with pytest.raises(UserError, match="the predictor gave"):
        predictors.consistency(native, lambda sequences: [far[:-1]], 1)


def test_a_function_of_the_user(native, designed, monkeypatch):
    module = types.ModuleType("my_predictor")
    module.fold = lambda sequences: [native.coords for _ in sequences]
    monkeypatch.setitem(sys.modules, "my_predictor", module)
    monkeypatch.setenv(predictors.VARIABLE, "my_predictor:fold")
    judge = metrics(Metrics(predictor="own", designs=2))["consistency"]
    other = backbones(True)[4]
    assert judge([native], [native]) == pytest.approx({"sc_rmsd": 0, "sc_tm": 1, "designable": 1}, abs=1e-3)
    if len(other) != len(native):
        with pytest.raises(UserError, match="the predictor gave"):
            judge([other], [native])
    assert metrics()["consistency"]([native], [native]) == {}


def test_a_command_of_the_user(native, designed, tmp_path, monkeypatch):
    write_pdb(native, tmp_path / "answer.pdb")
    script = tmp_path / "predict.py"
    script.write_text(
        "import pathlib, shutil, sys\n"
        "for line in open(sys.argv[1]):\n"
        "    if line[0] == '>':\n"
        "        out = pathlib.Path(sys.argv[2]) / (line[1:].strip() + '.pdb')\n"
        f"        shutil.copy({str(tmp_path / 'answer.pdb')!r}, out)\n"
    )
    monkeypatch.setenv(predictors.VARIABLE, f"{sys.executable} {script} {{fasta}} {{out}}")
    found = predictors.consistency(native, predictors.predictor("own"), 11)
    assert found["sc_rmsd"] < 1e-2
    monkeypatch.setenv(predictors.VARIABLE, f"{sys.executable} -c 0 {{fasta}} {{out}}")
    with pytest.raises(UserError, match="no structure file named design_0"):
        predictors.consistency(native, predictors.predictor("own"), 1)
    monkeypatch.setenv(predictors.VARIABLE, "not-there {fasta} {out}")
    with pytest.raises(UserError, match="is not there"):
        predictors.consistency(native, predictors.predictor("own"), 1)


@pytest.mark.parametrize("own", ["", "module", "no such:thing", "surely_absent:fold", "json:absent"])
def test_what_is_no_predictor_is_refused(own, monkeypatch):
    monkeypatch.setenv(predictors.VARIABLE, own)
    with pytest.raises(UserError, match=predictors.VARIABLE):
        predictors.predictor("own")
