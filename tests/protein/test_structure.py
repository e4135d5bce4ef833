"""Laws of backbone geometry: frames and atoms undo each other, torsions come back, and mirror images are noticed."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science_domains.protein import structure as s
from fm_science_domains.protein.chains import shipped


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def rotation(generator: torch.Generator, *shape: int) -> torch.Tensor:
    q, r = torch.linalg.qr(torch.randn(*shape, 3, 3, dtype=torch.float64, generator=generator))
    q = q * torch.diagonal(r, dim1=-2, dim2=-1).sign()[..., None, :]
    return q * torch.linalg.det(q)[..., None, None]


@pytest.mark.parametrize("angstrom", [1.0, 0.1])
def test_atoms_of_frames_give_the_frames_back(generator, angstrom):
    r, x = rotation(generator, 5, 7), torch.randn(5, 7, 3, dtype=torch.float64, generator=generator)
    r2, x2 = s.frames(*s.backbone(r, x, angstrom))
    torch.testing.assert_close(r2, r, atol=1e-12, rtol=0)
    torch.testing.assert_close(x2, x, atol=1e-12, rtol=0)


def test_backbone_scales_with_its_unit(generator):
    r, x = rotation(generator, 4), torch.randn(4, 3, dtype=torch.float64, generator=generator)
    for a, b in zip(s.backbone(r, 10 * x), s.backbone(r, x, 0.1), strict=True):
        torch.testing.assert_close(a, 10 * b)


def test_frames_turn_with_the_chain(generator):
    atoms = torch.randn(3, 6, 3, dtype=torch.float64, generator=generator)
    g, shift = rotation(generator), torch.randn(3, dtype=torch.float64, generator=generator)
    r, x = s.frames(*atoms)
    r2, x2 = s.frames(*(atoms @ g.T + shift))
    torch.testing.assert_close(r2, g @ r)
    torch.testing.assert_close(x2, x @ g.T + shift)
    torch.testing.assert_close(torch.linalg.det(r2), torch.ones(6, dtype=torch.float64))


def test_coinciding_atoms_keep_values_and_gradients_finite():
    atoms = torch.zeros(3, 2, 3, requires_grad=True)
    r, x = s.frames(*atoms)
    out = s.with_oxygen(*s.backbone(r, x)).sum() + s.dihedral(*atoms, atoms[0]).sum()
    (gradient,) = torch.autograd.grad(out, atoms)
    assert out.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("degrees", [-179.0, -60.0, 0.0, 35.0, 180.0])
def test_place_and_dihedral_undo_each_other(generator, degrees):
    a, b, c = torch.randn(3, 8, 3, dtype=torch.float64, generator=generator)
    d = s.place(a, b, c, 1.5, math.radians(110), math.radians(degrees))
    error = s.dihedral(a, b, c, d) - math.radians(degrees)
    assert torch.sin(error / 2).abs().max() < 1e-9
    torch.testing.assert_close(torch.linalg.vector_norm(d - c, dim=-1), torch.full((8,), 1.5, dtype=torch.float64))
    torch.testing.assert_close(s.angle(b, c, d), torch.full((8,), math.radians(110), dtype=torch.float64))


def test_a_grown_chain_has_the_torsions_asked_for(generator):
    phi, psi, omega = (torch.rand(3, 2, 12, dtype=torch.float64, generator=generator) * 2 - 1) * math.pi
    p, q, o = s.torsions(s.grow(phi, psi, omega))
    for found, wanted in [(p[:, 1:], phi[:, 1:]), (q[:, :-1], psi[:, :-1]), (o[:, :-1], omega[:, :-1])]:
        assert torch.sin((found - wanted) / 2).abs().max() < 1e-9
    assert p[:, 0].isnan().all()
    assert q[:, -1].isnan().all()
    assert o[:, -1].isnan().all()


def test_the_alpha_helix_is_the_one_of_the_textbook():
    one = torch.ones(30, dtype=torch.float64)
    coords = s.grow(math.radians(-63) * one, math.radians(-42) * one)  # averages of crystal structures
    ca = coords[:, 1]
    # Pauling & Corey: 1.5 angstrom a residue and 3.6 residues a turn; CA to CA 3.8; i to i + 3 near 5.1
    rise = torch.linalg.vector_norm(ca[18:29].mean(0) - ca[0:11].mean(0)) / 18
    assert abs(rise - 1.5) < 0.08
    assert abs(torch.linalg.vector_norm(ca[1:] - ca[:-1], dim=-1) - 3.80).max() < 0.03
    assert abs(torch.linalg.vector_norm(ca[3:] - ca[:-3], dim=-1).mean() - 5.1) < 0.2
    # right-handed: four successive CA atoms turn by about +50 degrees
    turn = s.dihedral(ca[:-3], ca[1:-2], ca[2:-1], ca[3:])
    assert abs(turn.rad2deg() - 51).max() < 4
    # each O reaches the N four residues on: the hydrogen bond of the alpha helix
    assert abs(torch.linalg.vector_norm(coords[:-4, 3] - coords[4:, 0], dim=-1).mean() - 3.0) < 0.25


def test_a_mirror_image_has_the_opposite_torsions():
    coords = torch.from_numpy(shipped()[7].coords).double()
    mirrored = coords * coords.new_tensor([1, 1, -1])
    for angle, opposite in zip(s.torsions(coords), s.torsions(mirrored), strict=True):
        torch.testing.assert_close(angle, -opposite, equal_nan=True)


def test_ideal_geometry_rebuilds_native_chains():
    """Root mean square errors: 0.04 angstrom for N, CA, C and below 0.1 for O, the end apart."""
    coords = [torch.from_numpy(chain.coords) * 0.01 for chain in shipped()[::60]]
    error = torch.cat([(s.ideal(x) - x)[:-1].square().sum(-1) for x in coords]).mean(0).sqrt()
    assert error[:3].square().mean().sqrt() < 0.05
    assert error[1] == 0
    assert error[3] < 0.1
