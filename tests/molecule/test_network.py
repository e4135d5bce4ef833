"""Every network of the domain keeps the laws it claims, with and without hands, properties, memory and charges."""

from __future__ import annotations

import pytest
import torch

from fm_science.domain import group
from fm_science.errors import OptionError
from fm_science.state import Context
from fm_science.symmetries import Permutations, Rotations
from fm_science.testing import check_network
from fm_science.testing.laws import ragged
from fm_science_domains.molecule import recipe
from fm_science_domains.molecule.network import Kinds, Network, Radial, network

SMALL = {"width": 16, "edge": 8, "vectors": 4, "layers": 2, "heads": 2, "radial": 8}
GAP = (("gap", (1.0, 2.0)),)
VARIANTS = [
    ({"chiral": True}, Kinds(5, 5, 4, 1.4, True, GAP), False),
    ({"chiral": False}, Kinds(5, 5, 0, 1.4, False), True),
    ({"kind": "pyg"}, Kinds(5, 5, 4, 1.4, True, GAP), True),
    ({"kind": "pyg", "radius": 2.5}, Kinds(5, 5, 4, 1.4, False), True),
    ({"kind": "e3nn"}, Kinds(5, 5, 4, 1.4, True, GAP), False),
    ({"kind": "e3nn", "chiral": False, "radius": 2.5}, Kinds(5, 5, 0, 1.4, False), True),
    ({"kind": "transformer"}, Kinds(5, 5, 4, 1.4, True, GAP), None),
    ({"kind": "transformer"}, Kinds(5, 5, 0, 1.4, False), None),
]


def batch(kinds: Kinds) -> Context:
    conditions = {"gap": torch.tensor([1.0, torch.nan, 2.0, 0.0])} if kinds.conditions else {}
    return ragged([5, 3, 1, 4], 0, conditions)


@pytest.mark.parametrize(("options", "kinds", "mirrors"), VARIANTS)
def test_a_network_keeps_the_laws_it_claims(options: dict, kinds: Kinds, mirrors: bool | None) -> None:
    torch.manual_seed(0)
    counts = {"atoms": 4, "bonds": 4, **({"charges": 3} if kinds.charges else {})}
    path, prior = recipe.path(recipe.Path(), counts, kinds.scale)
    made = network(group(Network, {**SMALL, **options}), kinds)
    turns = (Rotations(),) if options.get("kind") != "transformer" else ()
    check_network(made, path, prior, batch(kinds), (Permutations(), *turns), mirrors)


def test_near_the_end_a_network_can_only_move_atoms_a_little() -> None:
    torch.manual_seed(0)
    kinds = Kinds(5, 5, 4, 1.4, False)
    path, prior = recipe.path(recipe.Path(), {"atoms": 4, "bonds": 4, "charges": 3}, 1.4)
    context = Context.full(3, 6)
    x = prior.sample(path.space, context)
    made = network(group(Network, SMALL), kinds)
    early, late = (
        (made(x, torch.full((3,), t), context)["positions"] - x["positions"]).norm() for t in (0.0, 1.0)
    )  # fmt: skip
    assert 0 < late < 0.3 * early  # the reach falls from 1.005 to 0.1 times the scale


def test_fragments_are_told_apart_from_free_atoms() -> None:
    torch.manual_seed(0)
    kinds = Kinds(5, 5, 0, 1.4, False)
    path, prior = recipe.path(recipe.Path(), {"atoms": 4, "bonds": 4}, 1.4)
    context = Context.full(1, 4)
    x = prior.sample(path.space, context)
    made = network(group(Network, SMALL), kinds)
    fixed = Context(context.mask, free=torch.tensor([[False, True, True, True]]), known=x)
    t = torch.full((1,), 0.5)
    assert not torch.allclose(made(x, t, context)["atoms"], made(x, t, fixed)["atoms"])


def test_bumps_cover_bonds_and_molecules() -> None:
    radial = Radial(20)
    seen = radial(torch.tensor([0.74, 1.09, 1.21, 1.34, 1.54, 2.5, 10.0]))
    assert (seen.sum(-1) > 0.5).all()
    assert (seen[2] - seen[3]).norm() > 0.2  # a double and a single bond look different


def test_sizes_that_do_not_divide_are_told() -> None:
    with pytest.raises(OptionError, match="multiple of"):
        network(Network(width=30, heads=4), Kinds(5, 5))
