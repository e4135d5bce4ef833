"""What the benchmarks of molecules rest on: a judge that sees molecules alone, and rows to read it by."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.molecule import properties, semlaflow
from benchmarks.molecule.__main__ import main
from fm_science.data import collate
from fm_science_domains.molecule import build, files
from fm_science_domains.molecule.data import Data, load
from fm_science_domains.molecule.metrics import Metrics
from fm_science_domains.molecule.validity import judge
from tools import train_semlaflow


@pytest.fixture(scope="module")
def bench() -> properties.Bench:
    domain = build(data={"limit": 300})
    counts = {k: part.space.classes for k, part in domain.path.parts.items() if k != "positions"}
    return properties.Bench(domain.path.space, counts, ("gap", "mu"))


def test_the_judge_learns_from_molecules_that_the_generator_has_not_seen() -> None:
    options = Data(limit=300)
    full, rest = properties.unseen(options)
    seen = set(load(options).train.pack.names.tolist())
    assert len(seen) == 300
    assert not seen & set(rest.pack.names.tolist())
    assert len(rest) == len(full.train) - 300
    assert properties.unseen(Data())[1].pack.names.tolist() == full.validation.pack.names.tolist()


def test_the_judge_does_not_see_pose_or_order(bench: properties.Bench) -> None:
    torch.manual_seed(0)
    data = load(Data(limit=300)).train
    items = [bench.points(data)[i] for i in range(4)]
    judge = properties.Judge(properties.Kinds.of(bench.counts, 1.0, False, {}), {"gap": (7.0, 1.0), "mu": (2.0, 1.0)})
    judge = judge.double()
    state, context = collate(bench.space, items)
    state = {k: v.double() for k, v in state.items()}
    q = torch.linalg.qr(torch.randn(3, 3).double())[0]
    turned = {**state, "positions": state["positions"] @ (q * torch.linalg.det(q))}
    n = context.mask.shape[1]
    order = torch.randperm(n)
    moved = {k: v[:, order][:, :, order] if k == "bonds" else v[:, order] for k, v in state.items()}
    there = judge(state, context)
    assert torch.allclose(there, judge(turned, context), atol=1e-9)
    assert torch.allclose(there, judge(moved, properties.Context(context.mask[:, order])), atol=1e-9)
    assert there.shape == (4, 2)


def test_rows_to_read_errors_by() -> None:
    rows, kinds = np.arange(60.0).reshape(30, 2), np.repeat([0, 1, 2], 10)
    mixed = properties.shuffled(rows, kinds)
    for kind in range(3):
        assert sorted(mixed[kinds == kind, 0]) == sorted(rows[kinds == kind, 0])
    assert (mixed[:, 1] == mixed[:, 0] + 1).all()
    (first, spread), (second, _) = properties.error(rows, rows + np.array([1.0, -2.0]))
    assert (first, second) == (1.0, 2.0)
    assert spread == 0
    assert np.isnan(properties.error(rows[:0], rows[:0])[0][0])
    targets = np.array([[0.0], [1.0], [4.0]])
    assert properties.others_error(targets, targets) == [pytest.approx((1 + 4 + 3) / 3)]
    assert properties.others_error(0 * targets, targets) == [pytest.approx(5 / 3)]  # conditions without effect
    assert np.isnan(properties.others_error(targets[:1], targets[:1])[0])


def test_molecules_become_batches_in_their_order(bench: properties.Bench) -> None:
    data = load(Data(limit=300)).train
    molecules = list(data.pack)[:7]
    made = list(bench.batches(data, molecules, size=3))
    assert [context.size for _, context in made] == [3, 3, 1]
    assert torch.cat([context.mask.sum(1) for _, context in made]).tolist() == [len(m) for m in molecules]
    assert bench.known(molecules).shape == (7, 2)


def test_files_of_two_models_are_measured_in_one_table(tmp_path: Path) -> None:
    library = load(Data(limit=200, hydrogens=True))
    drawn = {name: tmp_path / f"{name}.sdf" for name in ("ours", "SemlaFlow", "conversion")}
    for file in drawn.values():
        semlaflow.write(library.molecules("validation", 20), file)
    quick = Metrics(drug=5, strain=0, posebusters=0, xtb=0, processes=1)
    table = semlaflow.measured(drawn, library, argparse.Namespace(measures=quick, out=tmp_path))
    assert list(table) == ["ours", "SemlaFlow", "conversion", "held-out", "training set"]
    assert str(table["ours"]) == str(table["SemlaFlow"])
    assert table["ours"]["connected"] == 1
    assert table["held-out"]["bond_w1"] == 0
    assert "qed" in table["ours"]
    assert "qed" not in table["conversion"]
    assert {"metrics.csv", "metrics.json", "geometry.png"} <= {file.name for file in tmp_path.iterdir()}


def test_a_comparison_is_not_written_over_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["semlaflow", "--checkout", str(tmp_path), "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(words)
    assert "clone https://github.com/rssrwn/semla-flow" in capsys.readouterr().err
    (tmp_path / "semlaflow").mkdir()
    (tmp_path / "semlaflow" / "train.py").touch()
    with pytest.raises(SystemExit):
        main([*words, "--quick"])
    assert "name a new folder with --out" in capsys.readouterr().err


def test_the_driver_keeps_the_number_of_molecules(tmp_path: Path) -> None:
    mol = load(Data(limit=10, hydrogens=True)).molecules("train", 1)[0].to_rdkit(sanitize=True)
    assert train_semlaflow.write([mol, None], tmp_path / "drawn.sdf") == 1
    first, second = files.read(tmp_path / "drawn.sdf", hydrogens=True)
    assert judge(first).connected
    assert not judge(second).valid


def test_the_driver_refuses_options_that_their_script_has_not(tmp_path: Path) -> None:
    script = SimpleNamespace(DEFAULT_LR=0.1, DEFAULT_WARM_UP_STEPS=10)
    o = argparse.Namespace(folder=tmp_path, n=5, set='{"lr": 0.2}')
    made = train_semlaflow.options(script, o)
    assert (made.lr, made.warm_up_steps, made.n_validation_mols) == (0.2, 2000, 5)
    with pytest.raises(SystemExit, match="no option speed"):
        train_semlaflow.options(script, argparse.Namespace(folder=tmp_path, n=5, set='{"speed": 1}'))


def test_the_table_of_properties_says_what_the_size_alone_would_reach() -> None:
    wanted = np.array([[6.0], [7.0], [9.0]])
    found = properties.row(("gap",), 0.5, wanted, wanted + 0.5)
    assert found["connected"] == 0.5
    assert (found["gap (eV)"], found["gap ±"]) == (0.5, 0)
    assert found["gap of others"] == pytest.approx((1.5 + 3.5 + 0.5 + 2.5 + 2.5 + 1.5) / 6)
