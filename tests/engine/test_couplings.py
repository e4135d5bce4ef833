"""Couplings: data stay, noise is kept, and the pairs are as cheap as claimed."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from fm_science.couplings import ExactPlan, Independent, Paired, Reflow, Semidiscrete, Sinkhorn, Transport, Unbalanced
from fm_science.couplings.costs import groups, table
from fm_science.couplings.plans import entropic
from fm_science.flow import Flow
from fm_science.paths import Geodesic
from fm_science.priors import Normal, ProductPrior, Uniform
from fm_science.solvers import Heun
from fm_science.spaces import SO3, Centered, Euclidean, Functions, Product, Sphere, Torus, frames
from fm_science.spaces.discrete import Categorical
from fm_science.state import Context, leaves, take, tree_map
from fm_science.symmetries import Permutations, Rotations, Translations
from fm_science.symmetries.base import square
from fm_science.testing import check_coupling


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def ambient(leaf, n, sites):
    axes = {"graph": (), "nodes": (sites,), "edges": (sites, sites)}[leaf.on]
    return torch.randn(n, *axes, *leaf.event)


def batch(space, sizes):
    """Two batches of points with the given sizes."""
    context = Context(torch.arange(max(sizes)) < torch.tensor(sizes)[:, None])
    bound = space.bind(context)

    def draw():
        parts = space.parts or {"": space}
        point = {k: ambient(s, len(sizes), max(sizes)) for k, s in parts.items()}
        return bound.project(point.get("", point))

    return bound, draw(), draw(), context


def rows(state):
    """The samples of a state as comparable tuples."""
    flat = torch.cat([leaf.flatten(1) for leaf in leaves(state)], 1)
    return [tuple(r) for r in flat.tolist()]


SPACES = {
    "plane": Euclidean(2),
    "image": Euclidean((2, 3, 3)),
    "cloud": Centered(),
    "torus": Torus(3),
    "sphere": Sphere(2),
    "rotations": SO3(),
    "classes": Categorical(3),
    "bonds": Categorical(3, on="edges"),
    "functions": Functions(2),
    "frames": frames(),
    "molecule": Product(x=Centered(), atom=Categorical(4), bond=Categorical(3, on="edges")),
}


@pytest.mark.parametrize("name", SPACES)
def test_exact_pairs_are_optimal_on_every_space_and_nothing_but_noise_moves(name):
    space, x0, x1, context = batch(SPACES[name], (4, 4, 2, 4, 2, 4))
    paired, same, after = Transport().pair(space, x0, x1, context)
    assert same is x1
    assert after is context
    assert sorted(rows(paired)) == sorted(rows(x0))
    best = 0.0
    for members in (torch.tensor([0, 1, 3, 5]), torch.tensor([2, 4])):
        bound = space.bind(context.take(members))
        choices = [members[list(p)] for p in itertools.permutations(range(len(members)))]
        best += min(float(square(bound, take(x0, p), take(x1, members)).sum()) for p in choices)
    assert float(square(space, paired, x1).sum()) == pytest.approx(best, rel=1e-9)


def test_large_batches_take_another_solver_to_the_same_optimum():
    space, x0, x1, context = batch(Euclidean(3), (1,) * 250)
    small, large = (Transport(plan=ExactPlan(switch=n)).pair(space, x0, x1, context)[0] for n in (1000, 10))
    assert sorted(rows(large)) == sorted(rows(x0))
    assert float(square(space, large, x1).sum()) == pytest.approx(float(square(space, small, x1).sum()), rel=1e-12)


def test_the_exact_plan_is_a_permutation_where_everything_ties():
    for n in (1, 2, 5, 300):
        order, weight = ExactPlan()(torch.zeros(n, n))
        assert weight is None
        assert sorted(order.tolist()) == list(range(n))


def test_on_the_line_optimal_transport_sorts():
    space, x0, x1, context = batch(Euclidean(1), (1,) * 300)
    paired = Transport().pair(space, x0, x1, context)[0]
    assert torch.equal(paired.flatten().argsort(), x1.flatten().argsort())


def test_equal_seeds_give_equal_pairs_and_exact_plans_draw_nothing():
    space, x0, x1, context = batch(Euclidean(2), (1,) * 64)
    for plan in (ExactPlan(), Sinkhorn(0.1), Unbalanced(0.1)):
        torch.manual_seed(3)
        first = Transport(plan=plan).pair(space, x0, x1, context)[0]
        torch.manual_seed(3)
        assert torch.equal(first, Transport(plan=plan).pair(space, x0, x1, context)[0])
    before = torch.get_rng_state()
    Transport(Permutations()).pair(space, x0, x1, context)
    assert torch.equal(before, torch.get_rng_state())


def test_only_equal_conditions_exchange_noise_and_unnamed_ones_are_refused():
    space, x0, x1, _ = batch(Euclidean(2), (1,) * 40)
    label = torch.randint(3, (40,))
    context = Context.full(40, label=label)
    with pytest.raises(ValueError, match=r"within=\('label',\)"):
        Transport().pair(space, x0, x1, context)
    with pytest.raises(ValueError, match="carries no"):
        Transport(within=("colour",)).pair(space, x0, x1, context)
    paired, _, after = Transport(within=("label",)).pair(space, x0, x1, context)
    assert after.cond["label"] is label
    best = 0.0
    for k in range(3):
        mine = label == k
        assert sorted(rows(paired[mine])) == sorted(rows(x0[mine]))
        group = space.bind(context.take(mine))
        best += float(square(group, Transport().pair(group, x0[mine], x1[mine], Context.full(int(mine.sum())))[0],
                             x1[mine]).sum())  # fmt: skip
    assert float(square(space, paired, x1).sum()) == pytest.approx(best)
    free = Transport(ignore="label").pair(space, x0, x1, context)[0]
    assert float(square(space, free, x1).sum()) < best


def test_near_conditions_run_from_free_exchange_to_none():
    space, x0, x1, _ = batch(Euclidean(2), (1,) * 30)
    context = Context.full(30, energy=torch.randn(30))
    free = Transport(ignore=("energy",)).pair(space, x0, x1, context)[0]
    assert torch.equal(Transport(condition_weights={"energy": 0.0}).pair(space, x0, x1, context)[0], free)
    assert torch.equal(Transport(condition_weights={"energy": 1e9}).pair(space, x0, x1, context)[0], x0)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(
    "symmetries", [(Permutations(),), (Rotations(),), (Permutations(), Rotations()), (Translations(), Rotations())]
)
def test_symmetries_never_raise_the_cost_and_keep_noise_up_to_orbits(symmetries, across):
    space, x0, x1, context = batch(Centered(), (5, 3, 5, 5, 3))
    paired = Transport(*symmetries, across_batch=across).pair(space, x0, x1, context)[0]
    plain = Transport().pair(space, x0, x1, context)[0] if across else x0
    assert square(space, paired, x1).sum() <= square(space, plain, x1).sum() + 1e-12
    assert bool((paired[~context.mask] == 0).all())
    lengths = lambda x: x.square().sum((1, 2)).sort().values  # noqa: E731 - what all of these motions keep
    assert torch.allclose(lengths(paired), lengths(x0))


def test_across_the_batch_symmetries_are_priced_into_the_exchange():
    """The optimum over exchange and rotation together, by brute force over all 24 exchanges."""
    space, x0, x1, context = batch(frames(), (3, 3, 3, 3))
    turn = Rotations()
    best = math.inf
    for p in itertools.permutations(range(4)):
        moved = turn.align(space, take(x0, torch.tensor(p)), x1)
        best = min(best, float(square(space, moved, x1).sum()))
    paired = Transport(turn).pair(space, x0, x1, context)[0]
    assert float(square(space, paired, x1).sum()) == pytest.approx(best)
    cheap = Transport(turn, cost=lambda s, a, b: -square(s, a, b)).pair(space, x0, x1, context)[0]
    assert float(square(space, cheap, x1).sum()) > best


@pytest.mark.parametrize("dim", [2, 3])
def test_the_joint_alignment_is_near_the_exact_optimum_of_four_points(dim):
    """All 24 orders with the best rotation of each are the truth; taking turns may stop above it, but never below."""
    space, x0, x1, context = batch(Centered(dim), (4,) * 64)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    costs = torch.stack([Rotations().cost(space, space.permute(x0, o.expand(64, 4)), x1) for o in orders])
    truth = costs.min(0).values
    taken = square(
        space, Transport(Permutations(), Rotations(), across_batch=False).pair(space, x0, x1, context)[0], x1
    )
    start = square(space, x0, x1)
    assert bool((taken >= truth - 1e-9).all())
    assert (taken.mean() - truth.mean()) < 0.15 * (start.mean() - truth.mean())


def test_a_shuffled_rotated_batch_of_copies_is_undone_to_the_last_bit_of_rotation():
    space, y, _, context = batch(Centered(), (6,) * 8)
    x = take(Rotations().randomise(space, y), torch.randperm(8))
    assert square(space, Transport(Rotations()).pair(space, x, y, context)[0], y).max() < 1e-9


def test_exchanged_noise_takes_the_frozen_sites_of_its_new_datum():
    known, free = torch.randn(6, 3, 2), torch.tensor([[True, True, False]]).expand(6, 3)
    context = Context(torch.ones(6, 3, dtype=torch.bool), free=free, known=known)
    space = Euclidean(2).bind(context)
    x0, x1 = space.project(torch.randn(6, 3, 2)), space.project(torch.randn(6, 3, 2))
    paired = Transport(Permutations()).pair(space, x0, x1, context)[0]
    assert torch.equal(paired[:, 2], known[:, 2])
    assert square(space, paired, x1).sum() < square(space, x0, x1).sum()
    with pytest.raises(ValueError, match="frozen"):
        Transport(Rotations()).pair(Centered().bind(context), x0, x1, context)


def test_the_entropic_plan_has_its_marginals_and_equals_an_independent_solver():
    ot = pytest.importorskip("ot")
    cost = torch.rand(20, 20)
    plan = entropic(cost, 0.05, tolerance=1e-10).exp()
    share = torch.full((20,), 0.05)
    assert torch.allclose(plan.sum(0), share, atol=1e-9)
    assert torch.allclose(plan.sum(1), share, atol=1e-9)
    other = ot.bregman.sinkhorn_log(share.numpy(), share.numpy(), cost.numpy(), 0.05, stopThr=1e-12)
    assert torch.allclose(plan, torch.as_tensor(other), atol=1e-8)
    loose = entropic(cost, 0.05, keep_rows=0.5, keep_columns=0.5, tolerance=1e-12).exp()
    other = ot.unbalanced.sinkhorn_stabilized_unbalanced(
        share.numpy(), share.numpy(), cost.numpy(), 0.05, 0.5, stopThr=1e-14, numItermax=10_000
    )  # fmt: skip
    assert torch.allclose(loose, torch.as_tensor(other), atol=1e-8)


def test_an_entropic_plan_that_does_not_converge_is_an_error_and_so_are_costs_without_value():
    cost = torch.rand(30, 30)
    with pytest.raises(RuntimeError, match=r"Raise reg \(0.001\)"):
        Sinkhorn(1e-3, steps=10)(cost)
    for plan in (ExactPlan(), Sinkhorn(), Unbalanced()):
        with pytest.raises(ValueError, match="1 of 900"):
            plan(cost.index_put((torch.tensor(3), torch.tensor(4)), torch.tensor(math.nan)))
    with pytest.raises(ValueError, match="positive"):
        Sinkhorn(0.0)


def test_sinkhorn_tends_to_the_exact_plan_and_draws_each_noise_as_often_as_it_should():
    _, x0, x1, _ = batch(Euclidean(1), (1,) * 16)
    cost = torch.cdist(x0[:, 0], x1[:, 0]).square()
    order, _ = ExactPlan()(cost)
    best = float(cost[order, torch.arange(16)].mean())
    for reg in (1.0, 0.3, 0.1):  # the entropy of a plan between n points spans log n
        excess = float((entropic(cost, reg, tolerance=1e-7).exp() * cost).sum()) - best
        assert -1e-5 < excess <= reg * math.log(16)
    plan = entropic(cost, 0.5, relative=True).exp()
    draws = torch.stack([Sinkhorn(0.5)(cost)[0] for _ in range(2000)])
    seen = torch.nn.functional.one_hot(draws, 16).double().mean(0).T  # noise by datum
    assert (seen - 16 * plan).abs().max() < 5 * math.sqrt(0.25 / 2000)


def test_unbalanced_transport_fades_outliers_and_keeps_the_noise():
    space, x0, x1, context = batch(Euclidean(2), (1,) * 50)
    x1[0] = 100.0
    paired, same, after = Transport(plan=Unbalanced(0.05, keep_data=0.1)).pair(space, x0, x1, context)
    weight = after.cond["weight"]
    assert same is x1
    assert "weight" not in context.cond
    assert weight[0] < 1e-3 < weight[1:].min()
    assert float(weight.mean()) == pytest.approx(1, abs=1e-2)  # noise is kept exactly, so the whole mass is
    strict = Transport(plan=Unbalanced(0.05, keep_data=1e6)).pair(space, x0, x1, context)[2].cond["weight"]
    assert torch.allclose(strict, torch.ones(50), atol=0.02)
    twice = Transport(plan=Unbalanced(0.05)).pair(space, x0, x1, after)[2].cond["weight"]
    assert twice[0] < weight[0]
    assert paired.shape == x0.shape


def test_independence_is_declared_by_the_independent_coupling_alone():
    data = Semidiscrete(torch.zeros(2, 1, 2), Context.full(2))
    assert Independent.independent
    assert not any(c.independent for c in (Transport(), Paired(), data, Reflow(None)))
    assert "Rotations" in repr(Transport(Rotations(), within="label"))
    assert "label" in repr(Transport(within="label"))


def ring(n):
    angle = 2 * math.pi * torch.arange(n) / n
    return 2 * torch.stack([angle.cos(), angle.sin()], -1)[:, None]


def test_semidiscrete_potentials_share_the_noise_evenly_and_carry_conditions():
    data = torch.cat([ring(12), 0.3 * ring(8)])
    context = Context.full(20, number=torch.arange(20))
    coupling = Semidiscrete(data, context)
    report = coupling.fit(Euclidean(2), Normal(), iterations=1500, seed=1)[0]
    assert report.variation - report.floor < 0.03
    assert report.empty == 0
    assert report.largest < 1.3
    here = Context.full(3000, number=torch.zeros(3000, dtype=torch.long))
    x0 = torch.randn(3000, 1, 2)
    same, x1, after = coupling.pair(Euclidean(2).bind(here), x0, data[torch.randint(20, (3000,))], here)
    assert same is x0
    assert torch.equal(x1, data[after.cond["number"]])
    counts = after.cond["number"].bincount(minlength=20)
    assert (counts - 150).abs().max() < 5 * math.sqrt(150) + 0.3 * 150
    other = Semidiscrete(data, context)
    with pytest.raises(RuntimeError, match="fit"):
        other.pair(Euclidean(2).bind(here), x0, x1, here)
    other.load_state_dict(coupling.state_dict())
    assert torch.equal(other.pair(Euclidean(2).bind(here), x0, x1, here)[1], x1)
    with pytest.raises(ValueError, match="20 data"):
        Semidiscrete(data[:5], Context.full(5)).load_state_dict(coupling.state_dict())


def test_semidiscrete_transport_has_one_set_of_potentials_a_label_and_weights_on_request():
    data = torch.cat([ring(6), ring(6) + 3])
    label = torch.arange(2).repeat_interleave(6)
    coupling = Semidiscrete(data, Context.full(12, label=label), label="label", reweigh=True)
    reports = coupling.fit(Euclidean(2), Normal(), iterations=800)
    assert set(reports) == {0, 1}
    assert max(r.variation - r.floor for r in reports.values()) < 0.03
    here = Context.full(100, label=torch.randint(2, (100,)))
    _, x1, after = coupling.pair(Euclidean(2).bind(here), torch.randn(100, 1, 2), data[:1].expand(100, 1, 2), here)
    assert torch.equal(after.cond["label"], here.cond["label"])
    assert bool(((x1[:, 0].mean(-1) > 1.4) >= 0).all())
    assert (after.cond["weight"] - 1).abs().max() < 0.3
    missing = Context.full(1, label=torch.tensor([7]))
    with pytest.raises(ValueError, match="nothing of label"):
        coupling.pair(Euclidean(2).bind(missing), torch.randn(1, 1, 2), data[:1], missing)


def test_semidiscrete_transport_works_on_curved_spaces_and_refuses_what_it_cannot_do():
    space = Sphere(2)
    points = space.project(torch.randn(6, 1, 3))
    report = Semidiscrete(points, Context.full(6)).fit(space, Uniform(), iterations=400, batch=128)[0]
    assert report.variation - report.floor < 0.1
    with pytest.raises(RuntimeError, match="Raise iterations"):
        Semidiscrete(ring(30), Context.full(30)).fit(Euclidean(2), Normal(), iterations=2)
    with pytest.raises(TypeError, match="tie"):
        Semidiscrete(torch.eye(3)[:, None], Context.full(3)).fit(Categorical(3), None)
    with pytest.raises(ValueError, match="same sites"):
        Semidiscrete(torch.zeros(2, 2, 2), Context(torch.tensor([[True, True], [True, False]])))
    with pytest.raises(ValueError, match="no condition"):
        Semidiscrete(ring(3), Context.full(3), label="kind")


def test_a_teacher_pairs_noise_with_where_its_flow_carries_it():
    """The field of N(0, 1) to N(3, 1/4): x1 = 3 + x0 / 2."""

    def field(x, t, context):
        t = t[:, None, None]
        spread = (1 - t) ** 2 + 0.25 * t**2
        return 3 + (0.25 * t - (1 - t)) / spread * (x - 3 * t)

    flow = Flow(Geodesic(Euclidean(1)), Normal(), field)
    context = Context.full(20)
    space, x0 = Euclidean(1).bind(context), torch.randn(20, 1, 1)
    same, x1, after = Reflow(flow, Heun(), 200).pair(space, x0, torch.zeros(20, 1, 1), context)
    assert same is x0
    assert after is context
    assert not x1.requires_grad
    assert torch.allclose(x1, 3 + x0 / 2, atol=1e-3)
    assert flow.training
    again = Transport().pair(space, x0, x1, context)[0]
    assert torch.equal(again, x0), "a monotone map is already optimal: reflow changes nothing"


def test_states_keep_their_dtype_and_need_no_gradient():
    space, x0, x1, context = batch(frames(), (4, 4, 4))
    x0, x1 = (tree_map(lambda v: v.float().requires_grad_(), x) for x in (x0, x1))
    paired = Transport(Rotations()).pair(space, x0, x1, context)[0]
    assert all(v.dtype == torch.float32 and not v.requires_grad for v in leaves(paired))


@pytest.mark.parametrize("name", ["cloud", "torus", "frames"])
def test_transport_obeys_the_laws_that_plugins_are_held_to(name):
    prior = {"cloud": Normal(), "torus": Uniform(), "frames": ProductPrior(translations=Normal(), rotations=Uniform())}
    check_coupling(Independent(), SPACES[name], prior[name])
    check_coupling(Transport(), SPACES[name], prior[name], optimal=True)
    check_coupling(Transport(), SPACES[name], prior[name], sites=(3, 2, 3, 3, 2))
    if name != "torus":
        symmetries = (Permutations(), Rotations()) if name == "cloud" else (Rotations(),)
        check_coupling(Transport(*symmetries, starts=2), SPACES[name], prior[name], sites=(3, 2, 3), keeps_noise=False)


def test_new_starts_come_near_the_joint_optimum():
    space, x0, x1, context = batch(Centered(), (4,) * 64)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    costs = torch.stack([Rotations().cost(space, space.permute(x0, o.expand(64, 4)), x1) for o in orders])
    gaps = []
    for starts in (0, 12):
        coupling = Transport(Permutations(), Rotations(), across_batch=False, starts=starts)
        taken = square(space, coupling.pair(space, x0, x1, context)[0], x1)
        gaps.append(float((taken - costs.min(0).values).mean()))
    assert -1e-9 <= gaps[1] < 0.25 * gaps[0]


def test_an_outlier_that_no_number_can_weigh_draws_its_noise_all_the_same():
    plan = Unbalanced(reg=0.5, keep_data=1.0, relative=False)
    x0, x1 = torch.randn(8, 2), torch.randn(8, 2)
    x1[3] = 60.0
    cost = torch.cdist(x0, x1).square()
    log = entropic(cost, 0.5, keep_columns=1.0)
    draws = torch.stack([plan(cost)[0] for _ in range(1000)])
    seen = torch.nn.functional.one_hot(draws, 8).double().mean(0).T  # noise by datum
    assert (seen - log.softmax(0)).abs().max() < 5 * math.sqrt(0.25 / 1000)
    weight = plan(cost)[1]
    assert weight[3] == 0
    assert float(weight.mean()) == pytest.approx(1, abs=1e-2)  # all noise is kept, by the other data


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e4])
def test_far_means_leave_the_optimal_pairs_as_they_are_in_single_precision(offset):
    """The cost of a permutation beyond that of the means does not depend on where the means are."""
    x0, x1 = (torch.randn(64, 1, 2, dtype=torch.float32) for _ in range(2))
    moved = x1 + offset
    context = Context.full(64)
    paired, _, _ = Transport().pair(Euclidean(2).bind(context), x0, moved, context)
    here = (moved.double() - offset)[:, 0]  # what is left of the data after rounding
    cost = torch.cdist(x0[:, 0].double(), here).square().numpy()
    rows, columns = linear_sum_assignment(cost)
    assert float((paired[:, 0].double() - here).square().sum()) <= float(cost[rows, columns].sum()) + 1e-4
    true = torch.cdist(x0[:, 0].double(), moved[:, 0].double()).square()
    found = table(Euclidean(2).bind(context), x0, moved, context, groups(context))
    torch.testing.assert_close(found, true, rtol=1e-9, atol=1e-4)


def test_weights_of_pairs_keep_the_precision_of_the_data():
    x0, x1 = (torch.randn(16, 1, 2, dtype=torch.float32) for _ in range(2))
    context = Context.full(16)
    _, _, after = Transport(plan=Unbalanced(reg=0.1)).pair(Euclidean(2).bind(context), x0, x1, context)
    assert after.cond["weight"].dtype == torch.float32
