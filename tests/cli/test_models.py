"""Models: one file, or a name, where a run folder may stand; damaged and foreign ones are refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fm_science
from fm_science.models import Model, models

BRIEF = ("trainer.max_steps=2", "trainer.validate_every=100", "trainer.progress=false")


@pytest.fixture
def run(fm, tmp_path, monkeypatch):
    """A run of two steps on a file of points, and an empty folder of models."""
    monkeypatch.setenv("FM_SCIENCE_MODELS", str(tmp_path / "models"))
    points = torch.randn(40, 5, 2, generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "mine.npz", points=points.numpy())
    done = fm("train", "domain=point_cloud", "data.source=mine.npz", "network.width=8", *BRIEF, "run=first")
    assert done.code == 0, done.err
    return Path("first")


def test_a_model_samples_as_its_run_does(fm, tmp_path, run):
    assert fm("export", "first", "out=small.safetensors", "half=false", "note=a few points, 5, {of}: mine").code == 0
    assert Model(Path("small.safetensors")).card["note"] == "a few points, 5, {of}: mine"
    (tmp_path / "mine.npz").unlink()
    for source, out in (("first", "a"), ("small.safetensors", "b")):
        done = fm("sample", source, "n=3", "seed=1", "steps=2", f"out={out}")
        assert done.code == 0, done.err
    kept = [
        {f.name: f.read_bytes() for f in (tmp_path / out).iterdir() if f.name != "sampling.yaml"} for out in ("a", "b")
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) >= 1
    flow = fm_science.load("small.safetensors")
    assert flow.sample(flow.domain.request(2), steps=2, seed=0).shape[0] == 2


def test_a_name_stands_where_a_run_may(fm, tmp_path, run):
    assert "no run folder, model file or model" in fm("sample", "small", "n=1").err
    assert fm("export", "first", "out=small.safetensors").code == 0
    assert fm("models", "add", "small.safetensors").code == 0
    assert fm("models", "add", "small.safetensors").code == 2  # it is there already
    listed = fm("models")
    assert (listed.code, "small: domain point_cloud" in listed.out) == (0, True)
    (line,) = [line for line in fm("models", "small").out.splitlines() if "command:" in line]
    assert line.split()[1:4] == ["fm-science", "train", "domain=point_cloud"]
    assert {"data.source=mine.npz", "network.width=8"} <= set(line.split())  # what would train the same again
    assert (fm("models", "first").code, fm("models", "nothing").code) == (2, 2)
    done = fm("sample", "small", "n=2", "steps=2", "out=drawn")
    assert done.code == 0, done.err
    half = Model(models()["small"])
    exact = fm_science.load("first").state_dict()
    for name, weight in half.weights().items():
        torch.testing.assert_close(weight, exact[name], rtol=1e-3, atol=1e-3)


def test_training_starts_from_a_model(fm, tmp_path, run):
    assert fm("export", "first", "out=small.safetensors", "half=false").code == 0
    done = fm("train", "from=small.safetensors", *BRIEF, "optimizer.lr=0", "run=second")
    assert done.code == 0, done.err
    first, second = (fm_science.load(name).state_dict() for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)  # a learning rate of zero moves nothing
    assert fm("export", "second", "out=second.safetensors").code == 0
    assert "from=small.safetensors" in fm("info", "second.safetensors").out  # the card tells what it began from
    other = fm("train", "from=small.safetensors", "domain=image", "run=third")
    assert (other.code, "point_cloud" in other.err) == (2, True)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "foreign", "newer"])
def test_damaged_models_are_refused_in_one_line(fm, tmp_path, run, damage):
    file = tmp_path / "small.safetensors"
    assert fm("export", "first", "out=small.safetensors").code == 0
    whole = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        whole[-9] ^= 1
        file.write_bytes(whole)
    elif damage == "text":
        file.write_text("no model")
    elif damage == "foreign":
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(2)}, file)
    else:
        from fm_science.storage import load_tree, save_tree

        tree = load_tree(file)
        save_tree({**tree, "config": {**tree["config"], "version": "99.0"}}, file)
    done = fm("sample", "small.safetensors", "n=1")
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert "weights_only" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("export", "first"),
        ("export", "first", "out=x.pt"),
        ("export", "first", "out=x.safetensors", "half=3"),
        ("export", "nowhere", "out=x.safetensors"),
        ("models", "remove", "x"),
        ("models", "add", "nowhere.safetensors"),
    ],
)
def test_mistakes_are_told(fm, run, words):
    done = fm(*words)
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done.err


@pytest.mark.parametrize("name", models())
def test_every_shipped_model_opens_and_samples(name: str) -> None:
    """By its name alone: no data are read, and what it draws can be written by its domain."""
    model = Model(models()[name])
    assert model.label == name
    assert {"command", "data", "licence", "table"} <= model.card.keys()
    assert model.card["command"].startswith("fm-science train ")
    flow = fm_science.load(name)
    context = flow.domain.request(2)
    samples = flow.domain.decode(flow.sample(context, steps=3, seed=0), context)
    assert len(samples) == 2


def test_shipped_models_take_little_room() -> None:
    assert sum(file.stat().st_size for file in models().values()) < 25e6
