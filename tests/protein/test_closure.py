"""Strain is the gradient of an energy; closure makes bonds ideal, keeps torsions and moves atoms little."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science import Context
from fm_science.spaces.rotations import quaternion_matrix
from fm_science_domains.protein.closure import close_chain, phi_psi
from fm_science_domains.protein.geometry import peptide
from fm_science_domains.protein.strain import FEATURES, IDEAL, LEVER, peptide_distances, peptide_strain
from fm_science_domains.protein.structure import NANOMETRE, backbone, frames, grow


def chain(residues=24, seed=0, noise=0.0, turn=0.0):
    """Frames (1, N, ...) in nm of a chain with ideal peptides and random torsions of a coil, shaken by a little."""
    g = torch.Generator().manual_seed(seed)
    phi = -1.2 + 0.3 * torch.randn(residues, generator=g, dtype=torch.float64)
    psi = 2.4 + 0.4 * torch.randn(residues, generator=g, dtype=torch.float64)
    rotations, places = frames(*grow(phi, psi)[:, :3].unbind(1))
    half = turn * torch.randn(residues, 3, generator=g, dtype=torch.float64)
    rotations = rotations @ quaternion_matrix(torch.cat([torch.ones(residues, 1, dtype=torch.float64), half], -1))
    places = places / NANOMETRE + noise * torch.randn(residues, 3, generator=g, dtype=torch.float64)
    return {"translations": places[None], "rotations": rotations[None]}


def atoms(state):
    return torch.stack(backbone(state["rotations"], NANOMETRE * state["translations"]), -2)[0]


def energy(x, rotations):
    pairs = peptide_distances(x, rotations)
    lengths = torch.stack([(q - p).square().sum(-1).add(1e-10).sqrt() for p, q in pairs], -1)
    return 0.5 * (lengths - lengths.new_tensor(IDEAL)).square().sum()


def test_force_and_torque_are_minus_the_gradient():
    state = chain(noise=0.02, turn=0.05)
    x, rotations = state["translations"], state["rotations"]
    bonded = torch.ones(1, x.shape[1] - 1, dtype=x.dtype)
    shift = torch.zeros_like(x, requires_grad=True)
    turn = torch.zeros_like(x, requires_grad=True)  # in own axes; half of it is the vector part of the quaternion
    turned = rotations @ quaternion_matrix(torch.cat([torch.ones_like(turn[..., :1]), 0.5 * turn], -1))
    gradients = torch.autograd.grad(energy(x + shift, turned), (shift, turn))
    own = torch.einsum("bnji,bnj->bni", rotations, gradients[0])
    strain = peptide_strain(x, rotations, bonded)
    assert torch.allclose(strain.force, -own, atol=1e-12)
    assert torch.allclose(strain.torque, -gradients[1] / LEVER**2, atol=1e-11)
    assert strain.features.shape == (1, x.shape[1], FEATURES)


def test_an_ideal_chain_has_next_to_no_strain_and_does_not_move():
    state = chain()
    bonded = torch.ones(1, state["translations"].shape[1] - 1, dtype=torch.float64)
    strain = peptide_strain(state["translations"], state["rotations"], bonded)
    assert strain.force.abs().max() < 1e-3  # the ideal distances are rounded to 1e-4 nm
    closed = close_chain(state, Context.full(1, sites=24, residue=torch.arange(24)[None]))
    assert (atoms(closed) - atoms(state)).norm(dim=-1).max() < 0.05


def test_breaks_of_the_chain_have_no_strain():
    state = chain(noise=0.05)
    bonded = torch.ones(1, 23, dtype=torch.float64)
    bonded[0, 9] = 0
    whole = peptide_strain(state["translations"], state["rotations"], torch.ones_like(bonded))
    cut = peptide_strain(state["translations"], state["rotations"], bonded)
    alone = {k: v[:, :10] for k, v in state.items()}
    half = peptide_strain(alone["translations"], alone["rotations"], bonded[:, :9])
    assert torch.allclose(cut.features[:, :10], half.features)
    assert not torch.allclose(whole.features[:, 9], cut.features[:, 9])


@pytest.mark.parametrize("seed", range(3))
def test_closure_mends_bonds_and_keeps_torsions(seed):
    state = chain(40, seed, noise=0.008, turn=0.02)
    context = Context.full(1, sites=40, residue=torch.arange(40)[None])
    closed = close_chain(state, context)
    before, after = peptide(atoms(state)), peptide(atoms(closed))
    assert before["c_n_ok"] < 0.8
    assert after["c_n_ok"] == 1
    assert after["ca_ca_ok"] > 0.97
    assert after["angle_ca_c_n_sd"] < 1 < before["angle_ca_c_n_sd"]
    turned = [
        torch.remainder(a - b + math.pi, 2 * math.pi) - math.pi
        for a, b in zip(phi_psi(**_named(closed)), phi_psi(**_named(state)), strict=True)
    ]
    assert torch.stack(turned).square().mean().sqrt() < math.radians(4)
    assert (atoms(closed) - atoms(state)).square().sum(-1).mean().sqrt() < 0.35  # angstrom


def test_closure_leaves_frozen_and_padded_residues_alone():
    state = chain(20, noise=0.008)
    mask = torch.arange(20)[None] < 17
    free = torch.arange(20)[None] > 5
    context = Context(mask, {"residue": torch.arange(20)[None]}, free=free, known=state)
    closed = close_chain(state, context)
    still = ~mask | ~free
    for name in state:
        assert torch.equal(closed[name][still], state[name][still])
    assert not torch.equal(closed["translations"], state["translations"])


def _named(state):
    return {"x": state["translations"], "rotations": state["rotations"]}
