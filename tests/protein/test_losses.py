"""Laws of the auxiliary losses: zero at the truth, positive off it, blind to motions, padding and chain breaks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fm_science.spaces.rotations import quaternion_matrix as matrix
from fm_science.state import Context
from fm_science_domains.protein.losses import (
    BackboneAtoms,
    Clashes,
    HydrogenBonds,
    LocalDistances,
    Peptide,
    Window,
    atoms,
)
from fm_science_domains.protein.structure import frames, grow

OPEN = Window(start=0.0, ceiling=1e9)
LOSSES = [
    BackboneAtoms(window=OPEN), LocalDistances(window=OPEN), Peptide(window=OPEN), Clashes(window=OPEN),
    HydrogenBonds(reach=1.2, window=OPEN),  # wide, so that random walks have some
]  # fmt: skip
T = torch.tensor([0.6, 0.8], dtype=torch.float64)
names = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


def chain(sites=12, pad=0, seed=0):
    """Two random walks of 0.38 nm steps with random frames, the second one three residues shorter."""
    g = torch.Generator().manual_seed(seed)
    steps = torch.nn.functional.normalize(torch.randn(2, sites, 3, generator=g, dtype=torch.float64), dim=-1)
    mask = torch.arange(sites + pad) < torch.tensor([[sites], [sites - 3]])
    x = torch.nn.functional.pad(0.38 * steps.cumsum(1), (0, 0, 0, pad)) * mask[..., None]
    rotations = matrix(torch.randn(2, sites + pad, 4, generator=g, dtype=torch.float64))
    residue = torch.arange(sites + pad).expand(2, -1).clone()
    return {"translations": x, "rotations": rotations}, Context(mask, {"residue": residue})


def broken(state, by=0.2, seed=3):
    g = torch.Generator().manual_seed(seed)
    x, r = state["translations"], state["rotations"]
    q = torch.cat([torch.ones(*x.shape[:2], 1), by * torch.randn(x.shape, generator=g)], -1).double()
    return {"translations": x + by * torch.randn(x.shape, generator=g).double(), "rotations": r @ matrix(q)}


@names
def test_zero_at_the_truth_and_positive_off_it(loss):
    x1, context = chain()
    assert loss(x1, x1, T, context).abs().max() < 1e-20
    value = loss(broken(x1), x1, T, context)
    assert value.shape == (2,)
    assert (value > 1e-4).all()


@names
def test_unchanged_when_both_move(loss):
    x1, context = chain()
    turn = matrix(torch.tensor([0.2, 1.0, -0.4, 0.6], dtype=torch.float64))

    def move(s):
        return {"translations": s["translations"] @ turn.T + 2.0, "rotations": turn @ s["rotations"]}

    there = loss(move(broken(x1)), move(x1), T, context)
    assert torch.allclose(there, loss(broken(x1), x1, T, context), rtol=1e-9)


@names
def test_padding_counts_for_nothing(loss):
    x1, context = chain()
    wide, padded = chain(pad=4)
    wide = {k: torch.cat([x1[k], v[:, 12:]], 1) for k, v in wide.items()}
    hat = broken(x1)
    far = {k: torch.cat([v, broken(wide, 5.0)[k][:, 12:]], 1) for k, v in hat.items()}
    assert torch.allclose(loss(far, wide, T, padded), loss(hat, x1, T, context), rtol=1e-9)


@names
def test_window_opens_late_weighs_by_time_and_has_a_ceiling(loss):
    x1, context = chain()
    hat, t = broken(x1), torch.tensor([0.3, 0.95], dtype=torch.float64)
    plain = loss(hat, x1, torch.zeros(2, dtype=torch.float64) + 1e-9, context)
    late = replace(loss, window=Window(start=0.5, late=0.9, ceiling=1e9))(hat, x1, t, context)
    assert late[0] == 0
    assert late[1].item() == pytest.approx(100 * plain[1].item(), rel=1e-6)
    hat["translations"].requires_grad_()
    low = replace(loss, window=Window(start=0.0, ceiling=1e-3))(hat, x1, t, context)
    assert low.tolist() == pytest.approx([1e-3, 1e-3])
    low.sum().backward()
    assert hat["translations"].grad.abs().amax((1, 2)).min() > 0  # a ceiling is not the end of learning


@names
def test_gradients_are_finite_at_the_truth_and_where_residues_coincide(loss):
    x1, context = chain()
    for hat in (x1, {"translations": 0 * x1["translations"], "rotations": x1["rotations"]}):
        hat = {k: v.clone().requires_grad_() for k, v in hat.items()}
        loss(hat, x1, T, context).sum().backward()
        assert all(v.grad is None or v.grad.isfinite().all() for v in hat.values())


def test_peptide_ignores_a_break_of_the_chain():
    x1, context = chain()
    loss = LOSSES[2]
    hat = {k: v.clone() for k, v in x1.items()}
    hat["translations"][:, 6:] += 1.0  # everything after residue 5 has drifted off
    assert (loss(hat, x1, T, context) > 0.1).all()
    residue = context.cond["residue"] + 9 * (torch.arange(12) >= 6)
    gap = replace(context, cond={"residue": residue})
    assert loss(hat, x1, T, gap).abs().max() < 1e-20


def test_peptide_sees_each_of_its_bonds():
    """Turning one residue about its own CA changes C-N but not CA-CA; moving it changes both."""
    x1, _ = chain()
    hat = {k: v.clone() for k, v in x1.items()}
    hat["rotations"][:, 4] = hat["rotations"][:, 4] @ matrix(torch.tensor([1.0, 0.3, 0.0, 0.4]).double())
    change = (Peptide.bonds(hat) - Peptide.bonds(x1)).abs().amax((0, 1))
    assert change[3] == 0
    assert (change[:3] > 1e-3).all()


def test_clashes_by_hand():
    """Four residues on a line; the last is pushed onto the first: overlap (0.45 - 0.10)² over 4 residues."""
    x = torch.tensor([[[0.0, 0, 0], [0.5, 0, 0], [1.0, 0, 0], [1.5, 0, 0]]], dtype=torch.float64)
    x1 = {"translations": x, "rotations": torch.eye(3).double().expand(1, 4, 3, 3)}
    hat = {**x1, "translations": x.clone()}
    hat["translations"][0, 3, 0] = 0.1
    context = Context.full(1, sites=4, residue=torch.arange(4)[None])
    loss = Clashes(weight=1.0, body=0.45, window=OPEN)
    got = loss(hat, x1, torch.full((1,), 1e-9, dtype=torch.float64), context)
    assert got.item() == pytest.approx(0.35**2 / 4, rel=1e-6)


def test_atoms_have_ideal_geometry():
    a = atoms(chain()[0])
    nitrogen, alpha, carbon = a.unbind(2)
    assert torch.allclose((nitrogen - alpha).norm(dim=-1), torch.full((2, 12), 0.14606).double(), atol=1e-4)
    assert torch.allclose((carbon - alpha).norm(dim=-1), torch.full((2, 12), 0.1526).double(), atol=1e-6)


def test_the_hydrogen_bonds_of_a_helix_lead_four_residues_on():
    sites = 12
    phi, psi = (torch.full((sites,), math.radians(v), dtype=torch.float64) for v in (-57.0, -47.0))
    n, ca, c = grow(phi, psi, torch.full((sites,), math.pi, dtype=torch.float64))[:, :3].unbind(1)
    rotations, translations = frames(n, ca, c)
    helix = {"translations": translations[None] / 10, "rotations": rotations[None]}
    bond = HydrogenBonds.spans(helix)[0, ..., 0]
    index = torch.arange(sites)
    near = (bond < HydrogenBonds().reach) & ((index[:, None] - index).abs() >= 3)
    gives = (near.nonzero()[:, 1] - near.nonzero()[:, 0]).unique()
    assert gives.tolist() == [3, 4]  # the neighbour of the partner is just in reach
    assert near.diagonal(4)[: sites - 4].all()
    assert bond[0, 4].item() == pytest.approx(0.30, abs=0.02)  # nm; natives: 0.29
