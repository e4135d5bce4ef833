"""A run stands alone: without its data, in another place, it samples as before, and nothing is read but the run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fm_science
from fm_science.domain import Domain
from fm_science_domains.protein import chains
from fm_science_domains.protein.files import write_pdb

from .conftest import Command

BRIEF = ["trainer.max_steps=2", "trainer.progress=false", "trainer.validation_samples=2", "trainer.validation_data=4"]


def clouds(folder: Path, scale: float = 1.0) -> list[str]:
    points = scale * np.random.default_rng(0).normal(size=(20, 5, 2))
    np.savez(folder / "mine.npz", x=points, labels=np.array(["left", "right"] * 10))
    return ["domain=point_cloud", "data.source=mine.npz", "data.batch=4", "network.width=8", "network.layers=1",
            "metrics.clouds=8", "metrics.shapes=4"]  # fmt: skip


def backbones(folder: Path, scale: float = 1.0) -> list[str]:
    (folder / "mine").mkdir(exist_ok=True)
    few = chains.backbones(False)[:6] if scale == 1 else chains.backbones(False)[600:606]
    for chain in few:
        write_pdb(chain, folder / "mine" / f"{chain.name}.pdb")
    return ["domain=protein", "data.dir=mine", "data.batch=2", "network.width=16", "network.pair=8", "network.blocks=1",
            "sample.length=20-24", "metrics.pairs=2", "metrics.candidates=1"]  # fmt: skip


def rows(folder: Path, scale: float = 1.0) -> list[str]:
    found = scale * np.random.default_rng(0).normal(size=(40, 2))
    lines = [f"{a:.3f},{b:.3f},{'left' if a < b else 'right'}" for a, b in found]
    (folder / "mine.csv").write_text("\n".join(["a,b,kind", *lines]))
    return ["domain=table", "data.source=mine.csv", "data.columns=kind:class", "data.batch=8", "network.width=8",
            "network.layers=1", "metrics.coverage=2"]  # fmt: skip


CASES: dict[str, Callable[..., list[str]]] = {"point_cloud": clouds, "protein": backbones, "table": rows}


def drawn(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "sampling.yaml")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("name", CASES)
def test_a_run_stands_alone(fm: Command, tmp_path: Path, name: str) -> None:
    words = CASES[name](tmp_path)
    done = fm("train", *words, *BRIEF, "run=first")
    assert done.code == 0, done.err
    with pytest.MonkeyPatch.context() as patch:
        kind = type(fm_science.load("first").domain)
        patch.setattr(kind, "load_data", lambda self: pytest.fail("data were read"))
        assert fm("sample", "first", "n=3", "seed=5", "steps=2", "out=before").code == 0
    before = drawn(tmp_path / "before")
    assert len(before) >= 1

    CASES[name](tmp_path, 10.0)  # the data change
    assert fm("sample", "first", "n=3", "seed=5", "steps=2", "out=changed").code == 0
    assert drawn(tmp_path / "changed") == before
    for place in ("mine", "mine.npz", "mine.csv"):
        shutil.rmtree(tmp_path / place, ignore_errors=True)
        (tmp_path / place).unlink(missing_ok=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "first").rename(tmp_path / "elsewhere" / "moved")
    assert fm("sample", "elsewhere/moved", "n=3", "seed=5", "steps=2", "out=after").code == 0
    assert drawn(tmp_path / "after") == before
    shown = fm("info", "elsewhere/moved")
    assert (shown.code, name in shown.out) == (0, True)
    flow = fm_science.load("elsewhere/moved")
    assert isinstance(flow.domain, Domain)
    context = flow.domain.request(2)
    assert len(flow.domain.decode(flow.sample(context, steps=2, seed=0), context)) == 2
    judged = fm("evaluate", "elsewhere/moved", "n=2", "steps=2")
    assert judged.code == 0, judged.err
    assert judged.out.count("reference data are missing") == 1
    assert (tmp_path / "elsewhere" / "moved" / "report" / "metrics.csv").is_file()
