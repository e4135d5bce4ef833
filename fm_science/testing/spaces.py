"""The laws of spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fm_science.spaces import Space
from fm_science.state import Context, State, add, leaves, scale, tree_map
from fm_science.testing.laws import Laws, freeze, narrow, ragged, random_ambient, random_point, widen
from fm_science.testing.laws import rate_along as rate
from fm_science.testing.points import derivatives, gaussian_law, point_laws, rank
from fm_science.testing.volumes import volume_laws

#: The methods to correct if a law fails, by its first words.
MEND = {
    "exp(x, 0)": "exp", "project": "project", "exp reaches a point": "exp", "tangent": "tangent",
    "distance": "log or dot", "exp(x, log": "log or exp", "log is tangent": "log or tangent", "log is finite": "log",
    "dtype": "exp", "no tangent": "bind", "padded": "bind", "padding": "bind", "stack": "stack or origin",
    "count": "count", "permute": "permute", "gaussian": "gaussian, tangent or dot", "inner": "dot (or inner)",
    "a tangent has": "dot (or inner)", "transport": "transport (or set isometric = False)",
    "gradient suits": "gradient, tangent or dot", "exp commutes": "exp", "rotate": "rotate",
    "dimension": "tangent or dimension", "geodesics": "exp, log or dot", "log_volume": "log_volume",
    "jvp of exp": "exp, whose automatic derivative is wrong", "jvp of log": "log, whose automatic derivative is wrong",
    "gradient of": "the method that it names, whose formula divides zero by zero", "exp is finite": "exp",
    "log at the cut locus": "log or injectivity", "the mean of a move": "exp", "the same seed": "exp",
    "the origin": "origin", "exp leaves": "exp or tangent", "what tangent takes away": "tangent",
    "divergence": "log_scale or tangent", "densities": "log_scale, log_volume, gaussian or volume",
    "the volume": "volume, uniform, log_volume or injectivity",
}  # fmt: skip


def check_space(
    space: Space, sites: Sequence[int] = (1, 3, 5, 2), dtype: torch.dtype = torch.float64,
    tolerance: float | None = None, seeds: Sequence[int] = (0, 1, 2), spread: float = 1.0,
    cond: Mapping[str, Tensor] | None = None, frozen: bool = True, geodesic: bool = True,
    densities: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Check the laws of a space on ragged batches, with and without frozen sites, and at the points where formulas
    fail; with the first seed also its densities. The message of a law that fails names the methods to correct.

    Args:
        space: an unbound space.
        sites: numbers of real sites of the samples of a test batch.
        dtype: of the points; the singular points are visited in single precision too.
        tolerance: of the laws that hold exactly; default 1e-10 in double and 1e-4 in single precision.
        seeds: of torch's generator; the generator is left as it was.
        spread: standard deviation of the normal step from the origin that gives random points.
        cond: conditions that the space reads when it is bound.
        frozen: whether sites may be frozen.
        geodesic: whether ``exp`` and ``log`` are inverse to each other and follow geodesics; a space that only projects
            (a mesh) has a shorter list.
        densities: whether to check volumes and integrate a density too, which takes seconds.

    Returns:
        The largest error of each law.

    Raises:
        AssertionError: naming each law that fails with its error and tolerance.
    """
    laws = Laws(space, MEND)
    exact = tolerance if tolerance is not None else {torch.float64: 1e-10}.get(dtype, 1e-4)
    with torch.random.fork_rng([]):
        for seed in seeds:
            torch.manual_seed(seed)
            context = ragged(sites, cond=cond)
            point_laws(laws, space.bind(context), dtype, exact, spread, geodesic)
            contexts = [context] + [freeze(context, space, dtype)] * frozen
            for c in contexts:
                _motion(laws, space, c, dtype, exact, spread, geodesic)
            _padding(laws, space, context, sites, dtype, exact, spread, geodesic)
            _batching(laws, space, context, dtype, spread)
            for precision in (torch.float32, torch.float64):
                _singular(laws, space, context, precision, spread, geodesic)
            for part in [space] if space.smooth else _flat(space):
                (_smooth if part.smooth else _jumps)(laws, part, context, dtype, exact, spread, geodesic)
        torch.manual_seed(seeds[0])
        for part in _flat(space) if dtype == torch.float64 else ():
            if part.smooth:
                gaussian_law(laws, part, spread)
            if part.smooth and geodesic and densities:
                volume_laws(laws, part, spread)
    return laws.enforce()


def _flat(space: Space) -> list[Any]:
    """The leaf spaces of a space."""
    return [leaf for s in space.parts.values() for leaf in _flat(s)] if space.parts else [space]


def _motion(
    laws: Laws, space: Space, context: Context, dtype: torch.dtype, tol: float, spread: float, geo: bool
) -> None:
    """The laws of every space, including classes."""
    s = space.bind(context)
    x, y = random_point(s, dtype, spread), random_point(s, dtype, spread)
    a = _vector(s, x)
    u, zero = s.tangent(x, a), scale(0.0, a)
    laws.equal("exp(x, 0) = x", s.exp(x, zero), x, tol)
    laws.equal("project(x) = x", s.project(x), x, tol)
    p = s.project(random_ambient(x))
    laws.equal("project is idempotent", s.project(p), p, tol)
    laws.equal("tangent is idempotent", s.tangent(x, u), u, tol)
    laws.equal("distance is symmetric", s.distance(x, y), s.distance(y, x), tol)
    laws.small("distance(x, x) = 0", s.distance(x, x), tol)
    if geo:
        v = s.log(x, y)
        laws.equal("exp(x, log(x, y)) = y", s.exp(x, v), y, tol)
        laws.equal("log is tangent", s.tangent(x, v), v, tol)
    moved = s.exp(x, _step(s, x))
    laws.equal("exp reaches a point", s.project(moved), moved, tol)
    laws.holds("dtype is kept", all(m.dtype == dtype for m in leaves(moved)), f"exp left {dtype}")
    check_masked(laws, s, s.exp(x, a), s.project(random_ambient(x)), u)


def _vector(s: Any, x: State) -> State:
    """A random ambient vector at ``x``, not tangent."""
    if s.parts:
        return {name: _vector(part, x[name]) for name, part in s.parts.items()}
    return torch.randn(*s.mask.shape, *s.leaf.tangent_event, dtype=x.dtype)


def _step(s: Any, x: State) -> State:
    """A random tangent at ``x`` of about unit length."""
    if s.parts:
        return {name: _step(part, x[name]) for name, part in s.parts.items()}
    return s.gaussian(x) if s.smooth else s.tangent(x, _vector(s, x))


def check_masked(laws: Laws, s: Any, moved: State, projected: State, u: State) -> None:
    """Padded and frozen sites never move."""
    if s.parts:
        for name, part in s.parts.items():
            check_masked(laws, part, moved[name], projected[name], u[name])
        return
    still = ~s.free_mask
    laws.equal("no tangent on padded and frozen sites", u[still], torch.zeros_like(u[still]), 0.0)
    for point in (moved, projected):
        laws.equal("padded and frozen sites stay", point[still], s.apply_constraints(point)[still], 0.0)


def _padding(
    laws: Laws, space: Space, context: Context, sites: Sequence[int], dtype: torch.dtype, tol: float, spread: float,
    geo: bool,
) -> None:  # fmt: skip
    """More padding changes nothing."""
    s, extra = space.bind(context), 2
    cond = {k: torch.nn.functional.pad(v, (0, extra)) if k == "weights" else v for k, v in context.cond.items()}
    wide = space.bind(ragged(sites, extra, cond))
    x, y = random_point(s, dtype, spread), random_point(s, dtype, spread)
    u = _vector(s, x)
    wx, wy, wu = wide.project(widen(wide, x, extra)), wide.project(widen(wide, y, extra)), widen(wide, u, extra)
    law = "padding changes nothing"
    if geo:
        laws.equal(law, narrow(wide, wide.log(wx, wy), extra), s.log(x, y), tol)
    laws.equal(law, narrow(wide, wide.tangent(wx, wu), extra), s.tangent(x, u), tol)
    laws.equal(law, wide.distance(wx, wy), s.distance(x, y), tol)
    laws.equal(law, wide.dimension, s.dimension, tol)
    if s.smooth:
        step = _step(s, x)
        laws.equal(law, narrow(wide, wide.exp(wx, widen(wide, step, extra)), extra), s.exp(x, step), tol)


def _batching(laws: Laws, space: Space, context: Context, dtype: torch.dtype, spread: float) -> None:
    """Stacking the points of a batch restores the batch; so does reordering the sites and then inverting the order."""
    s = space.bind(context)
    x, counts = random_point(s, dtype, spread), context.mask.sum(1).tolist()
    points = [_cropped(s, tree_map(lambda v, i=i: v[i], x), n) for i, n in enumerate(counts)]
    laws.equal("stack pads with the origin", space.pad_batch(points), x, 0.0)
    most = max(counts)
    found = space.num_sites(points[counts.index(most)])
    laws.holds("number of sites", found in (1, most), f"num_sites is not {most}, the real sites")
    order = torch.rand(context.mask.shape).masked_fill(~context.mask, 2.0).argsort(1)
    back = order.argsort(1)
    laws.equal("permute undoes permute", s.permute(s.permute(x, order), back), x, 0.0)


def _cropped(s: Any, point: State, n: int) -> State:
    if s.parts:
        return {k: _cropped(part, point[k], n) for k, part in s.parts.items()}
    return point[(slice(n),) * (s.mask.ndim - 1)]


def _smooth(
    laws: Laws, space: Space, context: Context, dtype: torch.dtype, tol: float, spread: float, geo: bool
) -> None:
    """The laws of spaces whose tangents form a vector space."""
    s = space.bind(context)
    x, y = random_point(s, dtype, spread), random_point(s, dtype, spread)
    u, v = s.gaussian(x), s.gaussian(x)
    laws.equal("gaussian is tangent", s.tangent(x, u), u, tol)
    laws.equal("inner is symmetric", s.inner(x, u, v), s.inner(x, v, u), tol)
    laws.equal("inner is bilinear", s.inner(x, add(u, scale(2.0, v)), v), s.inner(x, u, v) + 2 * s.inner(x, v, v), tol)
    laws.holds("inner is positive", (s.inner(x, u, u)[s.dimension > 0] > 0).all(), "a tangent has no positive length")
    w = s.transport(x, y, u)
    laws.equal("transport gives a tangent", s.tangent(y, w), w, tol)
    if space.isometric:
        laws.equal("transport keeps inner products", s.inner(y, w, s.transport(x, y, v)), s.inner(x, u, v), tol)
    a = random_ambient(x)
    laws.equal("gradient suits the metric", s.inner(x, s.gradient(x, a), u), rate(s, x, a, u), 100 * tol)
    order = torch.rand(context.mask.shape).masked_fill(~context.mask, 2.0).argsort(1)
    reordered = s.exp(s.permute(x, order), s.permute(u, order))
    laws.equal("exp commutes with permute", reordered, s.permute(s.exp(x, u), order), tol)
    turn = torch.linalg.qr(torch.randn(len(context.mask), 3, 3, dtype=dtype))[0]
    turn = turn * torch.linalg.det(turn)[:, None, None]
    laws.equal("rotate keeps distances", s.distance(s.rotate(x, turn), s.rotate(y, turn)), s.distance(x, y), tol)
    rank(laws, s, x, tol)
    if geo:
        _geodesics(laws, s, x, y, tol, space.isometric)
        derivatives(laws, s, x, u, y)


def _geodesics(laws: Laws, s: Any, x: State, y: State, tol: float, isometric: bool) -> None:
    u = s.log(x, y)
    for part in (0.3, 0.7):
        z = s.exp(x, scale(part, u))
        laws.equal("geodesics have constant speed", s.distance(x, z), part * s.distance(x, y), tol)
        laws.equal("geodesics are shortest", s.distance(x, z) + s.distance(z, y), s.distance(x, y), tol)
        if isometric:
            rest = scale(1 / (1 - part), s.log(z, y))
            laws.equal("transport carries geodesics", s.transport(x, z, u), rest, 10 * tol)


def _singular(laws: Laws, space: Space, context: Context, dtype: torch.dtype, spread: float, geo: bool) -> None:
    """Values and gradients are finite at u = 0, y = x and near and at the cut locus."""
    s = space.bind(context)
    x = random_point(s, dtype, spread)
    zero = tree_map(lambda v: torch.zeros_like(v).requires_grad_(), x)
    nearest = s.project(zero)
    laws.finite(f"project is finite ({dtype})", nearest)
    total: Any = sum(v.sum() for v in leaves(nearest))
    if total.requires_grad:
        grads = torch.autograd.grad(total, leaves(zero), allow_unused=True)
        laws.finite(f"gradient of project is finite ({dtype})", list(grads))
    for y in _singular_points(s, x):
        xs, ys = (tree_map(lambda v: v.detach().clone().requires_grad_(), z) for z in (x, y))
        outputs = {"distance": s.distance(xs, ys), "project": s.project(xs)}
        if geo:
            outputs["log"] = s.log(xs, ys)
        if s.smooth:
            us = tree_map(
                lambda v: v.detach().clone().requires_grad_(), s.log(x, y) if geo else scale(1e-4, _step(s, x))
            )
            outputs |= {"exp": s.exp(xs, us), "transport": s.transport(xs, ys, us)}
            ys = {"y": ys, "u": us}
        for name, out in outputs.items():
            laws.finite(f"{name} is finite ({dtype})", out)
            loss: Any = sum((v * torch.randn_like(v)).sum() for v in leaves(out))
            if loss.requires_grad:
                grads = torch.autograd.grad(loss, leaves(xs) + leaves(ys), allow_unused=True, retain_graph=True)
                laws.finite(f"gradient of {name} is finite ({dtype})", list(grads))
        if geo and s.smooth and not s.parts:
            tol = 1e-9 if dtype == torch.float64 else 2e-4
            size = s.distance(s.exp(x, s.log(x, y)), y)
            laws.small(f"log at the cut locus leads there ({dtype})", size, tol * 10)


def _singular_points(s: Any, x: State) -> list[State]:
    """x itself, points close to it, and points around the cut locus along random directions and along an axis."""
    if s.parts:
        parts = {name: _singular_points(part, x[name]) for name, part in s.parts.items()}
        most = max(len(points) for points in parts.values())
        return [{name: points[i % len(points)] for name, points in parts.items()} for i in range(most)]
    if not s.smooth:
        return [x]
    axis = torch.zeros(*s.mask.shape, *s.leaf.tangent_event, dtype=x.dtype)
    axis.flatten(s.mask.ndim)[..., -1] = 1.0
    radius = s.leaf.injectivity
    lengths = [0.0, 1e-30, 1e-20, 1e-8, 1e-4]
    if radius < float("inf"):
        lengths += [radius + d for d in (-1e-4, -1e-6, 0.0, 1e-6, 1e-4)]
    points = [x]
    for direction in (s.gaussian(x), s.tangent(x, axis)):
        size = s.leaf.dot(x, direction, direction).clamp_min(1e-12).sqrt()
        unit = direction / size.reshape(size.shape + (1,) * (direction.ndim - size.ndim))
        points += [s.exp(x, r * unit) for r in lengths]
    return points


def _jumps(
    laws: Laws, space: Space, context: Context, dtype: torch.dtype, tol: float, spread: float, geo: bool
) -> None:
    """A random move has mean x + u if that is in the simplex; the same seed gives the same move."""
    n = 4000
    one = ragged((3,) * n)
    s = space.bind(one)
    x = tree_map(lambda v: v[:1].expand_as(v).clone(), random_point(s, dtype))
    target = tree_map(lambda v: torch.rand_like(v[:1]).expand_as(v), x)
    target = s.symmetrise(tree_map(lambda v: v / v.sum(-1, keepdim=True), target))
    u = scale(0.6, s.log(x, target))
    state = torch.random.get_rng_state()
    moved = s.exp(x, u)
    for m, p in zip(leaves(moved), leaves(add(x, u)), strict=True):
        laws.small("the mean of a move is x + u", (m - p).mean(0), 5 * (0.25 / n) ** 0.5)
    torch.random.set_rng_state(state)
    laws.equal("the same seed gives the same move", s.exp(x, u), moved, 0.0)
    laws.equal("tangent keeps rates", s.tangent(x, u), u, tol)
