"""Paths, pairs, losses and requests of molecules obey their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fm_science.domain import group
from fm_science.errors import OptionError
from fm_science.flow import Flow
from fm_science.paths import ProductPath
from fm_science.priors import ProductPrior
from fm_science.state import Context
from fm_science.testing.laws import ragged
from fm_science_domains.molecule import conditioning, recipe
from fm_science_domains.molecule.losses import Distances
from fm_science_domains.molecule.network import Kinds, Network, network
from fm_science_domains.molecule.pairing import Completion, FakeAtoms

COUNTS = {"atoms": 3, "bonds": 4, "charges": 2}
SMALL = {"width": 16, "edge": 8, "vectors": 4, "layers": 1, "heads": 2, "radial": 6}


def chain(sizes: list[int]) -> tuple[dict[str, Tensor], Context]:
    """Zigzag chains of single bonds, 1.5 angstrom long, of class 0 atoms and charges; one-hot with a mask class."""
    context = ragged(sizes)
    b, n = context.mask.shape
    k = torch.arange(n, dtype=torch.float)
    places = torch.stack([1.2 * k, 0.9 * (k % 2), torch.zeros(n)], -1).expand(b, n, 3) * context.mask[..., None]
    bonded = ((k[:, None] - k).abs() == 1) & context.mask[:, :, None] & context.mask[:, None]
    path, _ = recipe.path(recipe.Path(), COUNTS, 1.0)
    hot = torch.nn.functional.one_hot
    state = {
        "positions": places,
        "atoms": hot(torch.zeros(b, n, dtype=torch.long), 4).float(),
        "bonds": hot(bonded.long(), 5).float(),
        "charges": hot(torch.zeros(b, n, dtype=torch.long), 3).float(),
    }
    return path.space.bind(context).project(state), context


def built(kind: str = "masked") -> tuple[ProductPath, ProductPrior]:
    return recipe.path(group(recipe.Path, {"classes": kind, "bonds": 2.0}), COUNTS, 1.5)


@pytest.mark.parametrize("kind", ["masked", "uniform"])
def test_each_part_has_its_own_clock_and_its_own_noise(kind: str) -> None:
    torch.manual_seed(0)
    path, prior = built(kind)
    context = Context.full(4000, 4)
    x0 = path.bind(context, prior).space.project(prior.sample(path.space, context))
    classes = 4 if kind == "masked" else 3
    assert x0["atoms"].shape == (4000, 4, classes)
    x1 = {k: v[:1].roll(1, -1).expand_as(v) if k != "positions" else 0 * v for k, v in x0.items()}
    x1 = path.bind(context, prior).space.project(x1)
    t = torch.full((4000,), 0.5)
    x = path.bind(context, prior).sample(x0, x1, t)
    upper = torch.ones(4, 4).triu(1).bool()
    if kind == "masked":
        shares = (x["atoms"][..., :-1].sum(-1).mean(), x["bonds"][..., :-1].sum(-1)[:, upper].mean())
        assert shares[0] == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(16000))
        assert shares[1] == pytest.approx(0.25, abs=5 * 0.44 / math.sqrt(24000))
    assert x["positions"].std() == pytest.approx(0.5 * 1.5 * math.sqrt(3 / 4), rel=0.03)  # centred: 3 of 4 are free
    assert torch.equal(x["bonds"], x["bonds"].transpose(1, 2))


@pytest.mark.parametrize("kind", ["permutation", "rotation", "aligned"])
def test_pairs_shorten_the_way_and_leave_classes_and_data_alone(kind: str) -> None:
    torch.manual_seed(0)
    path, prior = built()
    x1, context = chain([5, 3, 4])
    space = path.bind(context, prior).space
    x0 = prior.sample(path.space, context)
    options = {"kind": kind, "in_workers": False, "fragments": 0.0}
    law = recipe.coupling(group(recipe.Coupling, options), COUNTS, prior, 3)
    y0, y1, after = law.pair(space, x0, x1, context)
    assert all(torch.equal(y1[k], x1[k]) for k in x1)
    assert all(y0[k] is x0[k] for k in COUNTS)
    assert after is context
    way = lambda x: (x["positions"] - x1["positions"]).square().sum((1, 2))  # noqa: E731
    assert (way(y0) <= way(x0) + 1e-4).all()
    assert way(y0).sum() < way(x0).sum()
    assert not law.independent
    assert law.independent_parts == tuple(COUNTS)


def test_classes_may_be_masked_again_although_positions_are_tied() -> None:
    path, prior = built()
    made = network(group(Network, SMALL), Kinds(4, 5, 3))
    x1, context = chain([4, 3])
    law = recipe.coupling(recipe.Coupling(fragments=0.0), COUNTS, prior, 3)
    flow = Flow(path, prior, made, recipe.sampler(recipe.Sample(steps=4), tuple(COUNTS), (), "aligned"))
    torch.manual_seed(0)
    recipe.objective(recipe.Objective(), law, (), 1.5)(flow, x1, context)
    x = flow.sample(context, seed=1)
    assert (x["bonds"][..., -1] == 0).all()
    assert (x["atoms"][..., -1] == 0).all()  # the last step lands: no mask is left
    with pytest.raises(TypeError, match="coupling"):
        flow.sample(context, recipe.Langevin(1.0), 4)
    with pytest.raises(OptionError, match="kind=aligned"):
        recipe.sampler(recipe.Sample(noise=1.0), tuple(COUNTS), (), "aligned")


def test_one_evaluation_a_step_and_the_temperature_reaches_the_logits() -> None:
    path, prior = built()
    times = []

    def oracle(x: dict, t: Tensor, context: Context) -> dict:
        times.append(float(t[0]))
        logits = {k: torch.zeros_like(x[k]) for k in COUNTS}
        logits["atoms"][..., 1] = 1.0
        return {"positions": 0 * x["positions"], **logits}

    o = recipe.Sample(steps=5, eta=0.0, temperature=0.1)
    flow = Flow(path, prior, oracle, recipe.sampler(o, tuple(COUNTS), (), "aligned"))
    flow.independent = False
    x = flow.sample(Context.full(200, 3), seed=0)
    assert times == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert x["atoms"][..., 1].mean() > 0.99  # odds e^10 to 2
    assert x["positions"].abs().max() < 1e-5


def test_short_distances_are_zero_at_the_truth_and_count_what_is_short() -> None:
    x1, context = chain([5, 3])
    loss = Distances(weight=2.0, reach=1.6, start=0.3)
    t = torch.tensor([0.9, 0.9])
    assert loss(x1, x1, t, context).abs().max() < 1e-10
    wide = {**x1, "positions": 1.1 * x1["positions"]}
    assert loss(wide, x1, t, context).tolist() == pytest.approx([2 * 0.15**2] * 2, rel=1e-3)  # bonds of 1.5 angstrom
    assert loss(wide, x1, torch.tensor([0.2, 0.9]), context)[0] == 0


def test_fragments_are_connected_frozen_and_centred() -> None:
    torch.manual_seed(0)
    path, prior = built()
    x1, context = chain([6, 5, 6, 3])
    law = recipe.coupling(recipe.Coupling(fragments=1.0, in_workers=False), COUNTS, prior, 3)
    assert isinstance(law, Completion)
    bound = path.bind(context, prior)
    x0, y1, after = law.pair(bound.space, prior.sample(path.space, context), x1, context)
    given = ~after.free
    for row, size in zip(given, [6, 5, 6, 3], strict=True):
        where = row.nonzero().flatten()
        assert 1 <= len(where) < size
        assert where.diff().eq(1).all()  # a connected piece of a chain
    middle = (y1["positions"] * given[..., None]).sum(1) / given.sum(1, keepdim=True)
    assert middle.abs().max() < 1e-5
    assert torch.equal(x0["positions"][given], y1["positions"][given])
    x = path.bind(after, prior).sample(x0, y1, torch.full((4,), 0.5))
    assert torch.equal(x["atoms"][given], x1["atoms"][given])
    whole = given[:, :, None] & given[:, None]
    assert torch.equal(x["bonds"][whole], x1["bonds"][whole])


def test_connected_pieces_do_not_leave_their_part() -> None:
    torch.manual_seed(0)
    bonds = torch.block_diag(torch.ones(3, 3), torch.ones(2, 2)).bool().expand(50, 5, 5)
    chosen = conditioning.connected(bonds, torch.ones(50, 5).bool(), torch.full((50,), 4))
    first, second = chosen[:, :3].sum(1), chosen[:, 3:].sum(1)
    assert ((first == 0) | (second == 0)).all()
    assert set((first + second).tolist()) == {2, 3}


def test_sizes_follow_the_data_or_what_is_asked() -> None:
    histogram = torch.tensor([0, 0, 3, 0, 1])
    ask = conditioning.Request(histogram, {"atoms": 4, "bonds": 5})
    torch.manual_seed(0)
    sizes = ask(4000).mask.sum(1)
    assert set(sizes.tolist()) == {2, 4}
    assert (sizes == 2).float().mean() == pytest.approx(0.75, abs=5 * 0.43 / math.sqrt(4000))
    assert ask(3, atoms=7).mask.shape == (3, 7)
    assert set(ask(200, atoms="5-6").mask.sum(1).tolist()) == {5, 6}
    for wrong in ("0", "6-5", "many"):
        with pytest.raises(OptionError, match="expected a number of atoms"):
            ask(1, atoms=wrong)


def test_a_fragment_stands_where_it_was_and_the_rest_has_room() -> None:
    fragment = {
        "positions": torch.tensor([[-0.7, 0.0, 0.0], [0.7, 0, 0]]), "atoms": torch.tensor([1, 2]),
        "bonds": torch.tensor([[0, 2], [2, 0]]),
    }  # fmt: skip
    histogram = torch.tensor([0, 5, 5, 1])
    ask = conditioning.Request(histogram, {"atoms": 4, "bonds": 5}, fragment=fragment, origin=torch.ones(3))
    context = ask(5)
    assert context.mask.sum(1).eq(3).all()  # the only size beyond the fragment
    assert context.known["bonds"][:, 0, 1].argmax(-1).eq(2).all()
    assert context.free.tolist() == [[False, False, True]] * 5
    with pytest.raises(OptionError, match="ask for at least 3"):
        ask(1, atoms=2)


def test_targets_and_conditions_are_read_and_mistakes_are_told() -> None:
    known = {"gap": (6.8, 1.3), "mu": (2.7, 1.5)}
    assert conditioning.names("gap+mu", known, "objective.condition") == ("gap", "mu")
    assert conditioning.targets("gap:6.5+mu:-1", ("gap", "mu")) == {"gap": 6.5, "mu": -1.0}
    with pytest.raises(OptionError, match="did you mean 'gap'"):
        conditioning.names("gab", known, "objective.condition")
    with pytest.raises(OptionError, match="trained on no property"):
        conditioning.targets("gap:1", ())
    with pytest.raises(OptionError, match="name:number"):
        conditioning.targets("gap=1", ("gap=1",))


def test_what_is_not_asked_for_is_not_told() -> None:
    torch.manual_seed(0)
    embedding = conditioning.Properties({"gap": (1.0, 2.0)}, 8)
    like = torch.zeros(1)
    absent = embedding(Context.full(2), like)
    unknown = embedding(Context.full(2, gap=torch.full((2,), torch.nan)), like)
    assert torch.equal(absent, unknown)
    assert not torch.allclose(embedding(Context.full(2, gap=torch.ones(2)), like), absent)


def test_distortion_is_for_training_only() -> None:
    torch.manual_seed(0)
    seen = []
    inner = torch.nn.Identity()
    inner.forward = lambda x, t, context: seen.append(x["positions"]) or x  # type: ignore[method-assign, func-returns-value]
    net = recipe.Distorted(inner, 0.5, 0.3, 0.5)
    x, t = {"positions": torch.zeros(2, 500, 3)}, torch.tensor([0.4, 0.6])
    net.eval()(x, t, Context.full(2, 500))
    net.train()(x, t, Context.full(2, 500))
    assert torch.equal(seen[0], x["positions"])
    assert seen[1][0].abs().max() == 0  # too early
    moved = seen[1][1].abs().sum(-1) > 0
    assert moved.float().mean() == pytest.approx(0.5, abs=0.12)
    assert seen[1][1][moved].std() == pytest.approx(0.3, rel=0.12)


def test_atoms_that_are_not_there_stand_by_real_ones_without_bonds() -> None:
    torch.manual_seed(0)
    counts = {**COUNTS, "atoms": 4}
    path, prior = recipe.path(recipe.Path(), counts, 1.5)
    sizes = [6, 5, 6, 3] * 50
    x1, context = chain(sizes)
    x1["atoms"] = torch.nn.functional.pad(x1["atoms"], (0, 1))
    law = recipe.coupling(recipe.Coupling(fragments=0.0, fakes=0.5, in_workers=False), counts, prior, 3)
    assert isinstance(law, FakeAtoms)
    space = path.bind(context, prior).space
    x0, y1, after = law.pair(space, prior.sample(path.space, context), x1, context)
    more = after.mask.sum(1) - torch.tensor(sizes)
    assert more.max() == 2  # three in ten of six, rounded up
    assert (more > 0).float().mean() == pytest.approx(0.5 * 0.63, abs=0.17)  # 2/3 for 4 to 6 atoms, 1/2 for 3
    fake = after.mask & (torch.arange(after.mask.shape[1]) >= torch.tensor(sizes)[:, None])
    assert (y1["atoms"][fake].argmax(-1) == 3).all()
    assert (y1["bonds"][fake][..., 0] == 1).all()
    assert x0["atoms"].shape == y1["atoms"].shape
    bound = path.bind(after, prior).space
    assert torch.allclose(bound.project(y1)["positions"], y1["positions"], atol=1e-5)
    gap = lambda x: (x["positions"][:, 1] - x["positions"][:, 0]).norm(dim=-1)  # noqa: E731
    assert torch.allclose(gap(y1), gap(x1), atol=1e-5)  # real atoms keep their shape
