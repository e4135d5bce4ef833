"""``prepare``: many files become one, from which training draws the same samples as from the files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fm_science.data import train_loader
from fm_science.domain import Domain
from fm_science.files import read_dropped
from fm_science.plugins import find
from fm_science.prepared import Prepared
from fm_science.storage import load_yaml

from .conftest import ROOT, Command


def chains(folder: Path, n: int = 12) -> None:
    from fm_science_domains.protein import chains
    from fm_science_domains.protein.files import write_pdb

    folder.mkdir()
    found = chains.backbones(False)
    for i in range(n):
        write_pdb(found[i % 300], folder / f"c{i:04d}.pdb")
    (folder / "bad.pdb").write_text("nothing\n")


def molecules(folder: Path) -> None:
    from fm_science_domains.molecule import MoleculeDomain

    MoleculeDomain().write(list(find("molecule").build({}).library.train.pack)[:30], folder)
    (folder / "samples.sdf").rename(folder / "some.sdf")
    (folder / "samples.smi").unlink(missing_ok=True)
    (folder / "bad.sdf").write_text("nothing\n\n\n  1  9\n$$$$\n")


def clouds(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, far in (("near", 0.0), ("far", 1e6)):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            x = torch.randn(3, 4 + i % 2, 3, generator=generator, dtype=torch.float64) + far
            np.savez(folder / name / f"{i}.npz", x=x.numpy())
    (folder / "near" / "bad.npz").write_bytes(b"PK nothing")


def functions(folder: Path) -> None:
    folder.mkdir()
    draw = np.random.default_rng(0)
    np.savez(folder / "grid.npz", values=draw.normal(size=(9, 6, 5)))
    values = draw.normal(size=(4, 6, 5))
    values[1, 3] = np.nan
    np.savez(folder / "more.npz", values=values)
    (folder / "bad.csv").write_text("a,b\nc,d\n")


def images(folder: Path) -> None:
    from PIL import Image

    draw = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(draw.integers(0, 255, (9, 8, 3), np.uint8)).save(folder / name / f"{i}.png")
    (folder / "dogs" / "bad.png").write_bytes(b"\x89PNG nothing")


CASES: list[tuple[str, Callable[[Path], None], tuple[str, ...]]] = [
    ("protein", chains, ()),
    ("molecule", molecules, ()),
    ("point_cloud", clouds, ()),
    ("function", functions, ("data.periodic=true",)),
    ("image", images, ("data.size=8",)),
]


def same(a: Any, b: Any) -> bool:
    """Whether trees of tensors and plain values are equal."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or a != a


def domain(name: str, place: Path, options: tuple[str, ...], cache: Path) -> Domain:
    """A domain that reads these data."""
    given = dict(word.removeprefix("data.").split("=") for word in options)
    data: dict[str, Any] = {key: value == "true" if value in ("true", "false") else int(value)
                            for key, value in given.items()}  # fmt: skip
    data |= {"cache": str(cache)} if name == "molecule" else {}
    made: Domain = find(name).build({"data": {**data, "dir" if name == "protein" else "source": str(place)}})
    return made


def first_batch(made: Domain) -> Any:
    x, context = next(iter(train_loader(made.data, made.path.space, 3, lambda: 0, 0, 1)))
    return x, context.mask, dict(context.cond)


@pytest.mark.parametrize(("name", "write", "options"), CASES, ids=[case[0] for case in CASES])
def test_training_draws_the_same(
    fm: Command, tmp_path: Path, name: str, write: Callable[[Path], None], options: tuple[str, ...]
) -> None:
    write(tmp_path / "files")
    done = fm("prepare", f"domain={name}", "input=files", "out=all.safetensors", "workers=2", *options)
    assert done.code == 0, done.err
    option = {"protein": "data.dir"}.get(name, "data.source")
    assert f"next: fm-science train domain={name} {option}=all.safetensors" in done.out
    (dropped,) = read_dropped(tmp_path / "dropped.csv")
    assert dropped.file.startswith("files/"), dropped
    assert "bad" in dropped.file
    assert dropped.reason
    files, prepared = (domain(name, tmp_path / place, options, tmp_path) for place in ("files", "all.safetensors"))
    assert same(dict(files.statistics), dict(prepared.statistics))
    assert same(first_batch(files), first_batch(prepared))
    for theirs, ours in ((files.data.train, prepared.data.train), (files.data.validation, prepared.data.validation)):
        assert len(theirs) == len(ours)
        assert all(same(theirs[i], ours[i]) for i in range(len(ours)))
    assert prepared.data.digest == Prepared(tmp_path / "all.safetensors").digest
    assert files.data.digest == ""
    (tmp_path / "kept").mkdir()
    if name != "image":  # which would learn features first
        assert any("bad" in line.read_text() for line in prepared.write_provenance(tmp_path / "kept"))
    assert not list(tmp_path.glob(".all*"))


def test_processes_change_nothing_and_a_moved_folder_neither(fm: Command, tmp_path: Path) -> None:
    chains(tmp_path / "files", 66)
    for out, workers in (("one", 1), ("two", 2)):
        assert fm("prepare", "domain=protein", "input=files", f"out={out}.safetensors", f"workers={workers}").code == 0
    one, two = ((tmp_path / f"{out}.safetensors").read_bytes() for out in ("one", "two"))
    assert one == two
    (tmp_path / "files").rename(tmp_path / "moved")
    assert fm("prepare", "domain=protein", str(tmp_path / "moved"), "out=three.safetensors").code == 0
    digests = {Prepared(tmp_path / f"{out}.safetensors").digest for out in ("one", "three")}
    assert len(digests) == 1
    again = fm("prepare", "domain=protein", "input=moved", "out=three.safetensors")
    assert (again.code, "already prepared" in again.out) == (0, True)
    info = fm("info", "one.safetensors")
    assert digests.pop() + ", whole" in info.out


def test_work_that_was_killed_goes_on(fm: Command, tmp_path: Path) -> None:
    chains(tmp_path / "files", 200)
    words = ["prepare", "domain=protein", "input=files", "out=all.safetensors", "workers=2"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "domains")])
    killed = subprocess.Popen(
        [sys.executable, "-m", "fm_science", *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    parts = tmp_path / ".all.safetensors.parts"
    while not list(parts.glob("0*.safetensors")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    other = fm(*words, "data.max_length=100")
    assert (other.code, "unfinished work" in other.err) == (2, True)
    done = fm(*words)
    assert done.code == 0, done.err
    assert "had been read before" in done.out
    assert fm(*words[:3], "out=whole.safetensors", "workers=1").code == 0
    assert (tmp_path / "all.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not parts.exists()


def test_a_run_keeps_the_digest(fm: Command, tmp_path: Path) -> None:
    clouds(tmp_path / "files")
    assert fm("prepare", "domain=point_cloud", "input=files", "out=all.safetensors").code == 0
    words = ("domain=point_cloud", "data.source=all.safetensors", "trainer.validation_samples=0")
    done = fm("train", *words, "preset=null", "trainer.max_steps=2", "run=r", "network.width=16")
    assert done.code == 0, done.err
    digest = Prepared(tmp_path / "all.safetensors").digest
    assert load_yaml(tmp_path / "r" / "config.yaml")["data_sha256"] == digest
    assert digest in (tmp_path / "r" / "history.jsonl").read_text()
    assert f"data: sha256 {digest}" in fm("info", "r").out


def test_mistakes_end_in_one_line(fm: Command, tmp_path: Path) -> None:
    chains(tmp_path / "files", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bad.pdb").write_text("nothing\n")
    (tmp_path / "other.txt").write_text("something\n")

    def refused(*words: str) -> str:
        done = fm(*words)
        assert done.code == 2, done.out
        assert done.err.count("\n") == 1
        return done.err

    protein = ("prepare", "domain=protein")
    assert "which domain" in refused("prepare", "input=files", "out=x")
    assert "write input=" in refused(*protein, "out=x").lower()
    assert "out=" in refused(*protein, "input=files")
    assert "nowhere" in refused(*protein, "input=nowhere", "out=x")
    assert "no structure files" in refused(*protein, "input=empty", "out=x")
    assert "nothing usable in bad: all is left out, see dropped.csv" in refused(*protein, "input=bad", "out=x")
    assert "is no prepared file" in refused(*protein, "input=files", "out=other.txt")
    assert "outside" in refused(*protein, "input=files", "out=files/x")
    assert "workers" in refused(*protein, "input=files", "out=x", "workers=0")
    assert "max_length" in refused(*protein, "input=files", "out=x", "data.max_lenth=9")
    assert "a table is one file" in refused("prepare", "domain=table", "input=other.txt", "out=x")
    assert "no method `preparation`" in refused("prepare", "domain=ring", "input=files", "out=x")
    assert fm(*protein, "input=files", "out=x", "data.max_length=100", "data.min_length=30").code == 0
    assert "with other options" in refused(*protein, "input=files", "out=x")
    (tmp_path / "files" / "c0000.pdb").touch()
    assert "changed since" in refused(*protein, "input=files", "out=x", "data.max_length=100", "data.min_length=30")


def test_training_refuses_what_does_not_fit(fm: Command, tmp_path: Path) -> None:
    chains(tmp_path / "files", 3)
    assert fm("prepare", "domain=protein", "input=files", "out=x", "data.max_length=100").code == 0
    train = ("train", "domain=protein", "preset=null", "trainer.max_steps=1", "dry=true", "data.dir=x")
    wide = fm(*train)
    assert wide.code == 2
    assert "prepared with data.max_length=100, and data.max_length=128 is asked for" in wide.err
    other = fm("train", "domain=point_cloud", "preset=null", "data.source=x", "dry=true")
    assert (other.code, "was prepared for domain 'protein'" in other.err) == (2, True)
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(whole[:-9])
    assert "cut short" in fm(*train).err
    (tmp_path / "x").write_bytes(whole.replace(b'\\"format\\": 1', b'\\"format\\": 9'))
    newer = fm(*train)
    assert (newer.code, "newer version" in newer.err) == (2, True)
    at = len(whole) - 200
    (tmp_path / "x").write_bytes(whole[: at // 2] + b"~" + whole[at // 2 + 1 :])
    assert "DAMAGED" in fm("info", "x").out
