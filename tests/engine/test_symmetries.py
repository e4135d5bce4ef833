"""Symmetries: aligning finds the nearest point of the orbit, random motions have the uniform law, and nothing that
does not flow is ever moved."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from fm_science.spaces import SO3, Centered, Euclidean, Functions, Product, Sphere, frames
from fm_science.spaces.discrete import Categorical
from fm_science.state import Context, tree_map
from fm_science.symmetries import Mirrors, Permutations, Rotations, Shifts, Translations
from fm_science.symmetries.base import square
from fm_science.symmetries.rotations import best_overlap, nearest

EXACT = 1e-10  # squared distances of order one in double precision


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def ragged(sizes, total):
    return Context(torch.arange(total) < torch.tensor(sizes)[:, None])


def clouds(dim=3, sizes=(5, 3, 4), total=6):
    context = ragged(sizes, total)
    space = Centered(dim).bind(context)
    draw = lambda: space.project(torch.randn(len(sizes), total, dim))  # noqa: E731
    return space, context, draw(), draw()


def some_frames(n=4, sites=6):
    space = frames().bind(Context.full(n, sites))
    draw = lambda: space.project(  # noqa: E731
        {"translations": torch.randn(n, sites, 3), "rotations": SO3().uniform((n, sites), torch.zeros(()))}
    )
    return space, draw(), draw()


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("symmetry", [Rotations(), Permutations()])
def test_a_moved_copy_is_brought_back(symmetry, dim):
    space, _, y, _ = clouds(dim)
    x = symmetry.randomise(space, y)
    assert square(space, x, y).min() > 0.01
    assert square(space, symmetry.align(space, x, y), y).max() < EXACT
    assert symmetry.cost(space, x, y).max() < 1e-6  # the closed form takes square roots of rounding errors


def test_moved_frames_are_brought_back():
    space, y, _ = some_frames()
    x = Rotations().randomise(space, y)
    assert square(space, Rotations().align(space, x, y), y).max() < EXACT


@pytest.mark.parametrize("dim", [2, 3])
def test_the_aligned_rotation_is_a_maximum_and_the_closed_form_knows_its_cost(dim):
    space, _, x, y = clouds(dim)
    aligned = Rotations().align(space, x, y)
    best = square(space, aligned, y)
    assert torch.allclose(Rotations().cost(space, x, y), best, atol=1e-9)
    for _ in range(200):
        assert bool((square(space, Rotations().randomise(space, x), y) >= best - 1e-12).all())


def test_mirror_images_are_not_superposed():
    space, _, x, _ = clouds(3, (6,), 6)
    assert square(space, Rotations().align(space, -x, x), x).min() > 0.01


@pytest.mark.parametrize("dim", [2, 3])
def test_degenerate_clouds_align_to_something_finite(dim):
    line = torch.zeros(4, 5, dim)
    line[1, :, 0] = torch.arange(5.0) - 2  # a line; the others are a point, a pair and a plane
    line[2, 0, 0], line[2, 1, 0] = 1, -1
    line[3, 0, 0], line[3, 1, 0], line[3, 2, 1], line[3, 3, 1] = 1, -1, 1, -1
    space = Centered(dim).bind(Context.full(4, 5))
    x = Rotations().randomise(space, line)
    for y in (line, torch.zeros_like(line)):
        aligned = Rotations().align(space, x, y)
        assert bool(aligned.isfinite().all())
        assert bool(Rotations().cost(space, x, y).isfinite().all())
        assert torch.allclose(square(space, aligned, y), Rotations().cost(space, x, y), atol=1e-6)
    r = nearest(torch.zeros(2, dim, dim))
    assert torch.allclose(r @ r.mT, torch.eye(dim))
    assert torch.allclose(torch.linalg.det(r), torch.ones(2))


def test_the_best_overlap_of_matrices_of_every_kind_is_that_of_the_best_rotation():
    h = torch.randn(200, 3, 3)
    h[:50] = h[:50, :, :1] * h[:50, :1, :]  # rank one
    h[50:60] = torch.eye(3) * torch.randn(10, 1, 1)
    assert torch.allclose(best_overlap(h), (nearest(h) * h).sum((1, 2)), atol=1e-7)  # a root of rounding


def test_permutations_equal_brute_force_and_never_cross_padding():
    space, context, x, y = clouds()
    aligned = Permutations().align(space, x, y)
    for b, n in enumerate(context.mask.sum(1).tolist()):
        best = min((x[b, list(p)] - y[b, :n]).square().sum() for p in itertools.permutations(range(n)))
        assert torch.isclose(square(space, aligned, y)[b], best)
    assert bool((aligned[~context.mask] == 0).all())
    rows = lambda v: sorted(map(tuple, v.tolist()))  # noqa: E731
    assert all(rows(a) == rows(b) for a, b in zip(aligned, x, strict=True))


def test_permutations_weigh_classes_and_directions_by_the_spaces_own_distance():
    context = ragged((4, 3), 5)
    space = Product(x=Centered(), kind=Categorical(3), axis=Sphere(2)).bind(context)
    point = lambda: space.project(  # noqa: E731
        {"x": torch.randn(2, 5, 3), "kind": torch.randn(2, 5, 3), "axis": torch.randn(2, 5, 3)}
    )
    x, y = point(), point()
    found = square(space, Permutations().align(space, x, y), y)
    for b, n in enumerate((4, 3)):
        costs = []
        for p in itertools.permutations(range(n)):
            order = torch.arange(5).repeat(2, 1)
            order[b, :n] = torch.tensor(p)
            costs.append(square(space, space.permute(x, order), y)[b])
        assert torch.isclose(found[b], min(costs))


def test_edges_move_along_with_their_nodes():
    space = Product(x=Centered(), bond=Categorical(3, on="edges")).bind(ragged((5, 4), 5))
    y = space.project({"x": torch.randn(2, 5, 3), "bond": torch.randn(2, 5, 5, 3)})
    x = Permutations().randomise(space, y)
    back = Permutations().align(space, x, y)
    assert torch.equal(back["x"], y["x"])
    assert torch.equal(back["bond"], y["bond"])


@pytest.mark.parametrize("symmetry", [Rotations(), Permutations()])
def test_aligning_never_raises_the_distance_on_mixed_spaces(symmetry):
    space, x, y = some_frames(64, 3)
    assert bool((square(space, symmetry.align(space, x, y), y) <= square(space, x, y)).all())


def test_rotations_are_haar_distributed():
    """A rotation has mean zero, and the trace squared has mean one (the vector representation is irreducible)."""
    n = 20_000
    r3, r2 = Rotations().draw(n, torch.zeros(())), Rotations().draw(n, torch.zeros(()), 2)
    for r, spread in ((r3, 1 / 3), (r2, 1 / 2)):
        assert r.mean(0).abs().max() < 5 * math.sqrt(spread / n)
    trace = r3.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(trace.square().mean() - 1) < 5 * math.sqrt(2 / n)  # E tr⁴ = 3


def test_permutations_are_uniform_over_real_sites():
    n = 6000
    space = Euclidean(1).bind(ragged((3,) * n, 4))
    x = torch.tensor([1.0, 2, 3, 0])[None, :, None].expand(n, 4, 1)
    moved = Permutations().randomise(space, x)[..., 0]
    assert bool((moved[:, 3] == 0).all())
    seen = (moved[:, 0] * 10 + moved[:, 1]).unique(return_counts=True)[1]
    assert len(seen) == 6
    assert (seen - n / 6).abs().max() < 5 * math.sqrt(n / 6)


def test_translations_meet_the_centre_and_rest_on_centred_clouds():
    context = ragged((5, 3), 6)
    space = Product(x=Euclidean(3, vector=True), h=Euclidean(2)).bind(context)
    x = space.project({"x": torch.randn(2, 6, 3), "h": torch.randn(2, 6, 2)})
    y = space.project({"x": torch.randn(2, 6, 3), "h": torch.randn(2, 6, 2)})
    moved = Translations().align(space, x, y)
    assert torch.equal(moved["h"], x["h"])
    assert torch.allclose(moved["x"].sum(1), y["x"].sum(1))
    assert bool((moved["x"][~context.mask] == 0).all())
    centred, _, a, b = clouds()
    assert torch.allclose(Translations().align(centred, a, b), a)
    with pytest.raises(TypeError, match="Centered"):
        Translations().randomise(space, x)
    assert not torch.equal(Translations(std=2.0).randomise(space, x)["x"], x["x"])


def test_frozen_sites_stay_under_permutations_and_forbid_the_rest():
    context = ragged((5, 4), 5)
    known = torch.randn(2, 5, 3)
    free = torch.tensor([[True, True, True, False, False]]).expand(2, 5)
    space = Centered().bind(Context(context.mask, free=free, known=known))
    x, y = space.project(torch.randn(2, 5, 3)), space.project(torch.randn(2, 5, 3))
    fixed = context.mask & ~free
    for moved in (Permutations().align(space, x, y), Permutations().randomise(space, x)):
        assert torch.equal(moved[fixed], known[fixed])
    for symmetry in (Rotations(), Translations(std=1.0)):
        for move in (lambda s=symmetry: s.align(space, x, y), lambda s=symmetry: s.randomise(space, x)):
            with pytest.raises(ValueError, match="frozen"):
                move()


def test_conditions_bar_what_would_tear_them():
    space, context, x, y = clouds()
    kinds = torch.randint(2, (3, 6))
    on_sites = Context(context.mask, {"element": kinds})
    with pytest.raises(ValueError, match="within"):
        Permutations().bind(space, on_sites)
    bound = Permutations(within=("element",)).bind(space, on_sites)
    tagged = Product(x=Centered(), tag=Euclidean(1)).bind(context)
    moved = bound.align(tagged, {"x": x, "tag": kinds[..., None].double()}, {"x": y, "tag": kinds[..., None].double()})
    assert torch.equal(moved["tag"][context.mask], kinds[context.mask][:, None].double())
    with pytest.raises(ValueError, match="vectors"):
        Rotations().bind(space, Context(context.mask, {"field": torch.randn(3, 3)}))
    assert Rotations(beside=("field",)).bind(space, Context(context.mask, {"field": torch.randn(3, 3)}))
    with pytest.raises(ValueError, match="no condition on sites"):
        Permutations(within=("missing",)).bind(space, context)
    with pytest.raises(TypeError, match="bind"):
        Permutations().align(Centered(), x, y)
    with pytest.raises(TypeError, match="nodes"):
        Permutations().align(Euclidean(2, on="graph").bind(context), x[:, 0, :2], y[:, 0, :2])


def test_the_same_seed_gives_the_same_motion_and_states_keep_their_dtype():
    space, y, _ = some_frames()
    single = tree_map(lambda v: v.float(), y)
    torch.manual_seed(5)
    first = Rotations().randomise(space, single)
    torch.manual_seed(5)
    again = Rotations().randomise(space, single)
    assert all(torch.equal(first[k], again[k]) and first[k].dtype == torch.float32 for k in first)


def pictures():
    space = Euclidean((1, 3, 4)).bind(Context.full(6))
    return space, torch.randn(6, 1, 1, 3, 4), torch.randn(6, 1, 1, 3, 4)


@pytest.mark.parametrize("axis", [-1, -2])
def test_mirrors_bring_images_back_and_are_fair(axis):
    space, x, y = pictures()
    mirrors = Mirrors(axis)
    assert torch.equal(mirrors.align(space, y.flip(axis), y), y)
    assert bool((square(space, mirrors.align(space, x, y), y) <= square(space, x, y)).all())
    many = x[:1].expand(300, 1, 1, 3, 4)
    drawn = mirrors.randomise(Euclidean((1, 3, 4)).bind(Context.full(300)), many)
    same = (drawn == many).flatten(1).all(1)
    assert abs(same.float().mean() - 0.5) < 5 * 0.5 / math.sqrt(300)
    assert torch.equal(drawn[~same], many[~same].flip(axis))


def fields(*shapes):
    """Values on grids of the torus, padded to the largest."""
    mask = torch.arange(max(math.prod(s) for s in shapes)) < torch.tensor([math.prod(s) for s in shapes])[:, None]
    context = Context(mask, {"grid": torch.tensor(shapes), "weights": mask / mask.sum(1, keepdim=True)})
    space = Functions(2).bind(context)
    return space, context, *(space.project(torch.randn(*mask.shape, 2)) for _ in range(2))


@pytest.mark.parametrize("shapes", [[(7,), (5,)], [(3, 4), (2, 5)]])
def test_the_best_shift_is_that_of_an_exhaustive_search(shapes):
    space, context, x, y = fields(*shapes)
    shifts = Shifts().bind(space, context)
    assert square(space, shifts.align(space, shifts.randomise(space, y), y), y).max() < EXACT
    found = square(space, shifts.align(space, x, y), y)
    for b, shape in enumerate(shapes):
        a, goal = (v[b, : math.prod(shape)].unflatten(0, shape) for v in (x, y))
        axes = tuple(range(len(shape)))
        errors = [
            (a.roll(steps, axes) - goal).square().sum() / math.prod(shape)
            for steps in itertools.product(*map(range, shape))
        ]
        assert torch.isclose(found[b], min(errors))


def test_shifts_leave_axes_without_a_period_and_refuse_what_they_cannot_move():
    space, context, x, _ = fields((3, 4), (3, 4))
    moved = Shifts((False, True)).bind(space, context).randomise(space, x).unflatten(1, (3, 4))
    assert torch.allclose(moved.sum(2), x.unflatten(1, (3, 4)).sum(2))  # what is on a row stays on it
    with pytest.raises(ValueError, match="2 axes"):
        Shifts((True,)).bind(space, context)
    with pytest.raises(ValueError, match="regular grids"):
        Shifts().bind(space, Context(context.mask))
    with pytest.raises(TypeError, match="bind"):
        Shifts().randomise(space, x)


def test_sites_are_reordered_with_their_conditions():
    context = ragged((4, 3), 5)
    coords = torch.randn(2, 5, 1)
    context = Context(context.mask, {"coords": coords, "label": torch.tensor([1, 2])})
    order = Permutations(along=("coords",))
    moved, permuted = order.apply(Euclidean(1), coords * context.mask[..., None], context)
    assert torch.equal(moved, permuted.cond["coords"] * context.mask[..., None])
    assert torch.equal(permuted.cond["label"], context.cond["label"])
    assert not torch.equal(permuted.cond["coords"], coords)
    with pytest.raises(ValueError, match="within"):
        order.bind(Euclidean(1).bind(context), context)
