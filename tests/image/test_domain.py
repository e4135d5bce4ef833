"""The domain keeps its promises: with classes and without, on every path and with both networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fm_science import config
from fm_science.errors import OptionError, UserError
from fm_science.plugins import find
from fm_science.state import Context
from fm_science.testing import check_domain
from fm_science_domains.image import build
from fm_science_domains.image.data import Summary
from fm_science_domains.image.recipe import network
from tests.use import use

SMALL = {"width": 8, "head": 8}
PATCHES = {"kind": "transformer", "width": 16, "head": 8, "blocks": 1}
PRESETS = {  # the shape of its images, and the least and largest number of weights in millions
    "digits": ((1, 8, 8), 0.5, 1.0),
    "mnist": ((1, 28, 28), 2.0, 10.0),
    "cifar10_lipman2023": ((3, 32, 32), 120.0, 200.0),
    "cifar10_tong2024": ((3, 32, 32), 30.0, 45.0),
    "cifar10_liu2023": ((3, 32, 32), 45.0, 75.0),
    "imagenet32_lipman2023": ((3, 32, 32), 160.0, 260.0),
}


@pytest.mark.parametrize(
    "groups",
    [
        {"network": SMALL, "coupling": {"kind": "ot"}, "sample": {"guidance": 2.0}},
        {"network": PATCHES, "data": {"labels": False, "flip": True}},
        {"network": SMALL, "data": {"labels": False}, "path": {"schedule": "vp", "predicts": "noise"}},
        {"network": SMALL, "path": {"schedule": "lipman_ot"}, "objective": {"times": "logit_normal"}},
    ],
    ids=["classes", "patches", "diffusion", "lipman"],
)
def test_domain(groups) -> None:
    check_domain(build(**groups))


@pytest.mark.parametrize("labels", [True, False])
def test_images_can_be_encoded_for_variants(labels: bool) -> None:
    domain = build(network=SMALL, data={"labels": labels})
    given = domain.sets.held_out.images(3)
    state, context = domain.encode(given)
    found = domain.decode(state, context)
    for a, b in zip(found, given, strict=True):
        torch.testing.assert_close(a.pixels, b.pixels)
        assert a.label == (b.label if labels else None)
    assert domain.flow().sample(context, steps=2, seed=0, start=state, from_time=0.5).shape == state.shape
    with pytest.raises(UserError, match="what was trained has"):
        domain.encode([replace(given[0], pixels=given[0].pixels[:, :4])])


def test_files_of_ones_own(tmp_path: Path) -> None:
    x = torch.randint(256, (40, 12, 12, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8).numpy()
    np.savez(tmp_path / "mine.npz", x=x)
    domain = build(
        data={"source": str(tmp_path / "mine.npz")}, network={**SMALL, "multipliers": "1-1-2", "attention": 0}
    )
    assert domain.path.space.event == (3, 12, 12)
    assert len(domain.data.train) == 32
    check_domain(domain)  # no classes: features learn quarter turns
    (tmp_path / "run").mkdir()
    assert "quarter turns" in domain.write_provenance(tmp_path / "run")[0].read_text()


def test_a_class_is_drawn_and_guided() -> None:
    domain = build(network=SMALL, sample={"label": 7})
    assert domain.request(5).cond["label"].tolist() == [7] * 5
    assert "guidance" not in domain.request(5).cond
    guided = domain.request(3, label="2", guidance=3.0)
    assert guided.cond["label"].tolist() == [2] * 3
    assert guided.cond["guidance"].tolist() == [3.0] * 3
    images = domain.decode(torch.zeros(3, 1, 1, 8, 8), guided)
    assert [image.label for image in images] == [2] * 3


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"data": {"source": "nothing"}}, "no file or folder"),
        ({"data": {"size": 9}}, "8x8"),
        ({"network": {"multipliers": "1-2-2-2-2"}}, "cannot be halved 4 times"),
        ({"network": {"multipliers": "1,2"}}, "joined by dashes"),
        ({"network": {"kind": "transformer", "patch": 3}}, "does not divide"),
        ({"path": {"predicts": "noise"}}, "path.schedule=vp"),
        ({"sample": {"label": 12}}, "no such class"),
        ({"sample": {"label": 1}, "data": {"labels": False}}, "no classes"),
        ({"data": {"batchsize": 3}}, "did you mean 'batch'"),
    ],
)
def test_mistakes_are_told_in_one_line(groups, words: str) -> None:
    with pytest.raises((UserError, OptionError), match=words):
        use(build(**groups))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_recipes_that_fit(name: str) -> None:
    plugin = find("image")
    tree = config.preset(plugin, name, {**config.defaults(config.engine()), **config.defaults(plugin.options())})
    config.validate(config.engine(), tree)
    groups = config.validate(plugin.options(), tree)
    shape, least, most = PRESETS[name]
    found = Summary(shape, 255, (), torch.zeros(0))
    with torch.device("meta"):
        made = network(groups["network"], found)
        assert made(torch.zeros(2, 1, *shape), torch.zeros(2), Context.full(2)).shape == (2, 1, *shape)
    assert least < sum(p.numel() for p in made.parameters()) / 1e6 < most
