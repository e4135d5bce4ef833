"""The domain keeps its promises, for every network and path, for properties and for fragments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fm_science.errors import OptionError, UserError
from fm_science.sampling import Drawing, draw
from fm_science.testing import check_domain
from fm_science_domains.molecule import build
from fm_science_domains.molecule.molecule import Molecule
from tests.use import use

SMALL = {"width": 16, "edge": 8, "vectors": 4, "layers": 1, "heads": 2, "radial": 6}
FEW = {"limit": 60, "max_atoms": 8}
QUICK = {"drug": 0, "strain": 0, "posebusters": 0, "xtb": 0}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"network": {**SMALL, "kind": "transformer"}, "path": {"classes": "uniform"}},
        {"data": {**FEW, "hydrogens": True, "max_atoms": 14}, "sample": {"noise": 1.0},
         "coupling": {"kind": "independent", "in_workers": False, "fakes": 0.5}},
    ],
)  # fmt: skip
def test_the_domain_keeps_its_promises(options: dict) -> None:
    torch.manual_seed(0)
    check_domain(build(**{"data": FEW, "network": SMALL, "metrics": QUICK, **options}))


@pytest.mark.parametrize("hydrogens", [False, True])
def test_molecules_can_be_encoded_for_variants(hydrogens: bool) -> None:
    torch.manual_seed(0)
    domain = build(data={**FEW, "hydrogens": hydrogens, "max_atoms": 14 if hydrogens else 8}, network=SMALL)
    given = domain.library.molecules("train", 3)
    state, context = domain.encode(given)
    for found, molecule in zip(domain.decode(state, context), given, strict=True):
        torch.testing.assert_close(found.positions, molecule.positions, atol=1e-4, rtol=0)
        assert torch.equal(found.atoms, molecule.atoms)
        assert torch.equal(found.bonds, molecule.bonds)
    made = domain.flow().sample(context, steps=4, seed=0, start=state, from_time=0.8)
    assert [len(m) for m in domain.decode(made, context)] == [len(m) for m in given]
    gold = replace(given[0], atoms=torch.full_like(given[0].atoms, 79))
    with pytest.raises(UserError, match="element 79"):
        domain.encode([gold])


def test_a_wish_is_told_to_the_network_and_written_beside_the_molecule() -> None:
    torch.manual_seed(0)
    objective = {"condition": "gap+mu"}
    domain = build(data=FEW, network=SMALL, objective=objective, sample={"target": "gap:6.5", "guidance": 2.0})
    context = domain.request(3)
    assert context.cond["gap"].tolist() == [6.5] * 3
    assert context.cond["mu"].isnan().all()
    flow = domain.flow()
    made = domain.decode(flow.sample(context, steps=3, seed=0), context)
    assert made[0].properties == {"target_gap": 6.5}
    other = domain.request(3, target="gap:2")
    assert not torch.equal(
        flow.sample(other, steps=3, seed=0)["positions"], flow.sample(context, steps=3, seed=0)["positions"]
    )  # fmt: skip


def test_a_fragment_is_kept_and_the_rest_is_drawn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = build(data=FEW, network=SMALL)
    k = torch.arange(5)
    bonds = ((k[:, None] - k).abs() == 1).long()
    bonds[3, 4] = bonds[4, 3] = 2
    places = torch.stack([5 + 1.2 * k, 0.8 * (k % 2), 0.1 * k], -1)
    given = Molecule(places, torch.tensor([6, 6, 6, 6, 8]), bonds, torch.zeros(5).long(), hydrogens=False)
    file = next(f for f in plain.write([given], tmp_path / "given") if f.suffix == ".sdf")
    domain = build(data=FEW, network=SMALL, sample={"fragment": str(file), "steps": 4, "atoms": "6-9"})
    made = [m for _, some, _ in draw(domain, domain.flow(), Drawing(6, seed=1, batch=4)) for m in some]
    sizes = {len(m) for m in made}
    assert sizes <= {6, 7, 8, 9}
    assert len(sizes) > 1
    for m in made:
        assert torch.equal(m.atoms[:5], given.atoms)
        assert torch.equal(m.bonds[:5, :5], given.bonds)
        assert torch.allclose(m.positions[:5], given.positions, atol=1e-3)  # an SDF keeps four digits
    with pytest.raises(OptionError, match="at least 6"):
        use(build(data=FEW, network=SMALL, sample={"fragment": str(file), "atoms": 5}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": {"condition": "gab"}}, "did you mean 'gap'"),
        ({"sample": {"target": "gap:1"}}, "trained on no property"),
        ({"sample": {"atoms": "few"}}, "expected a number of atoms"),
        ({"sample": {"noise": 1.0}}, "kind=aligned"),
        ({"sample": {"fragment": "nothing.sdf"}}, "nothing.sdf"),
        ({"network": {"heads": 3}}, "multiple of"),
        ({"network": {"kind": "dens"}}, "expected one of dense"),
    ],
)
def test_mistakes_are_told_in_one_line(options: dict, words: str) -> None:
    with pytest.raises((UserError, OptionError), match=words):
        use(build(**{"data": FEW, **options}))
