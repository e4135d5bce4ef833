"""The laws of paths and of couplings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fm_science.couplings import Coupling
from fm_science.paths import Bridge, Path
from fm_science.predictions import Endpoint, Noise, Velocity
from fm_science.priors import Prior
from fm_science.spaces import Space
from fm_science.state import State, add, expand_like, scale, take, tree_map
from fm_science.testing.laws import Laws, origin, ragged, random_point
from fm_science.testing.spaces import check_masked

Raw = Callable[[Any, State, State, State, Tensor], State]

#: The exact raw output for a path with known endpoints, by the name of the prediction.
EXACT: dict[str, Raw] = {
    "Velocity": lambda path, x0, x1, x, t: path.endpoint_to_velocity(x, x1, t),
    "Endpoint": lambda path, x0, x1, x, t: x1,
    "Noise": lambda path, x0, x1, x, t: x0,
    "Posterior": lambda path, x0, x1, x, t: 100.0 * x1,
}


def check_path(
    path: Path, prior: Prior, sites: Sequence[int] = (1, 3, 5, 2), cond: Mapping[str, Tensor] | None = None,
    raw: Mapping[str, Raw] | None = None, seeds: Sequence[int] = (0, 1, 2), tolerance: float = 1e-7,
) -> dict[str, float]:  # fmt: skip
    """Check the laws of a path in double precision: it starts at the noise and ends at the data point if its schedule
    does, its velocity is the derivative of its sample, ``velocity_to_endpoint`` inverts ``endpoint_to_velocity``,
    ``step_to_endpoint`` stays on the path, every prediction means the same velocity, the right output has no loss, and
    jumps have the right probabilities.

    Args:
        path: an unbound path; the parts of a product are checked one by one.
        prior: the distribution of the noise.
        sites: numbers of real sites of the samples of a test batch.
        cond: conditions that space and prior read.
        raw: the exact raw output ``(path, x0, x1, x, t) -> raw`` of your own predictions, by class name.
        seeds: of torch's generator; the generator is left as it was.
        tolerance: of values that go through derivatives, and of steps along a path that is itself simulated; others
            must hold to 1e-9.

    Returns:
        The largest error of each law.

    Raises:
        AssertionError: naming each law that fails with its error and tolerance.
    """
    laws = Laws(path)
    with torch.random.fork_rng([]):
        for seed in seeds:
            torch.manual_seed(seed)
            _path(laws, path, prior, sites, cond, {**EXACT, **(raw or {})}, tolerance)
    return laws.enforce()


def _path(
    laws: Laws, path: Path, prior: Prior, sites: Sequence[int], cond: Mapping[str, Tensor] | None,
    raw: Mapping[str, Raw], tol: float,
) -> None:  # fmt: skip
    if path.parts:
        for name, part in path.parts.items():
            _path(laws, part, prior.parts[name], sites, cond, raw, tol)
        return
    context = ragged(sites, cond=cond)
    p = path.bind(context, prior)
    x0 = p.space.project(tree_map(lambda v: v.double(), prior.sample(path.space, context)))
    x1 = random_point(p.space, torch.float64, 0.5)
    t = 0.1 + 0.7 * torch.rand(len(sites), dtype=torch.float64)
    x = p.sample(x0, x1, t)
    laws.equal("sample is a point", p.space.project(x), x, 1e-9)
    check_masked(laws, p.space, x, x, scale(0.0, p.space.log(x, x) if p.space.geodesic else p.space.tangent(x, x)))
    _ends(laws, p, x0, x1)
    if isinstance(p, Bridge):
        target = raw[type(p.predicts).__name__]
        (_smooth if p.space.smooth else _jumps)(laws, p, x0, x1, x, t, target, tol)
        end = torch.ones_like(t)
        reached = p.step_to_endpoint(x, x1, t, end)
        laws.equal("step_to_endpoint to t = 1 gives the end", reached, p.sample(x0, x1, end), 1e-9)
        _loss(laws, p, x0, x1, x, t, target)


def _ends(laws: Laws, p: Any, x0: State, x1: State) -> None:
    for time, point, weights, name in (
        (0.0, x0, (0.0, 1.0), "starts at the noise"),
        (1.0, x1, (1.0, 0.0), "ends at the data point"),
    ):
        t = torch.full((len(p.space.mask),), time, dtype=torch.float64)
        if tuple(float(w[0]) for w in p.schedule(t)) == weights:
            laws.equal(f"the path {name}", p.sample(x0, x1, t), point, 1e-9)


def _smooth(laws: Laws, p: Bridge, x0: State, x1: State, x: State, t: Tensor, target: Raw, tol: float) -> None:
    h = torch.full_like(t, 1e-5)
    ahead, behind = (_way(p.space, x, p.sample(x0, x1, t + d)) for d in (h, -h))
    slope = scale(0.5 / h, add(ahead, scale(-1.0, behind)))
    exact = p.endpoint_to_velocity(x, x1, t)
    laws.equal("endpoint_to_velocity is the derivative of sample", exact, slope, tol)
    laws.equal("target_velocity is endpoint_to_velocity", p.target_velocity(x0, x1, x, t), exact, 1e-9)
    for both, expected in zip(p.sample_with_velocity(x0, x1, t), (x, exact), strict=True):
        laws.equal("sample_with_velocity is sample and target_velocity", both, expected, 1e-9)
    laws.equal("velocity is the derivative of sample", p.velocity(target(p, x0, x1, x, t), x, t), slope, tol)
    later = t + 0.5 * (1 - t)
    walked = p.step_to_endpoint(x, x1, t, later)
    laws.equal("step_to_endpoint stays on the path", walked, p.sample(x0, x1, later), 1e-9 if p.has_endpoint else tol)
    if not p.has_endpoint:
        return
    laws.equal("velocity_to_endpoint undoes endpoint_to_velocity", p.velocity_to_endpoint(x, exact, t), x1, 1e-9)
    for prediction in (Velocity(), Endpoint(), Noise()):
        if isinstance(prediction, Noise) and not p.space.linear:
            continue
        other = replace(p, predicts=prediction)
        output = EXACT[type(prediction).__name__](other, x0, x1, x, t)
        laws.equal(f"{prediction!r} means the same velocity", other.velocity(output, x, t), exact, 1e-9)
        laws.equal(f"{prediction!r} means the same endpoint", other.endpoint(output, x, t), x1, 1e-9)


def _way(space: Space, x: State, y: State) -> State:
    """The tangent from ``x`` to a nearby ``y``; on surfaces without a logarithm that of the straight line in space."""
    return space.log(x, y) if space.geodesic else space.tangent(x, add(y, scale(-1.0, x)))


def _jumps(laws: Laws, p: Any, x0: State, x1: State, x: State, t: Tensor, target: Raw, tol: float) -> None:
    """A site has the class of the data point with probability k(t), and else that of the noise."""
    hits, sites, differ = 0.0, 0, (x0 != x1).any(-1) & p.space.counted_mask
    k = expand_like(p.schedule(t)[0], differ.double())
    for _ in range(200):
        hits = hits + (p.sample(x0, x1, t) == x1).all(-1)
        sites += 1
    if bool(differ.any()):
        error = (hits / sites - k)[differ]
        laws.small("jumps have the probability of the schedule", error, 5.5 * (0.25 / sites) ** 0.5)
    laws.equal("the posterior of a known endpoint is the endpoint", p.endpoint(target(p, x0, x1, x, t), x, t), x1, 1e-9)


def _loss(laws: Laws, p: Bridge, x0: State, x1: State, x: State, t: Tensor, target: Raw) -> None:
    raw = target(p, x0, x1, x, t).detach().clone().requires_grad_()
    loss = p.loss(raw, x0, x1, x, t)
    laws.holds("loss is one number per sample", loss.shape == t.shape, f"shape is {tuple(loss.shape)}")
    laws.small("the right output has no loss", loss, 1e-9)
    noise = (1 + raw.detach().abs().max()) * torch.randn_like(raw)
    wrong = p.loss(raw + noise, x0, x1, x, t)
    laws.finite("gradient of the loss is finite", list(torch.autograd.grad(wrong.sum(), [raw])))
    laws.holds("a wrong output has a loss", (wrong >= 0).all() & (wrong.max() > 1e-6), f"losses are {wrong.tolist()}")
    padded = torch.where(expand_like(p.space.mask, raw), noise, 1e3)
    laws.equal("padding has no loss", p.loss(raw + padded, x0, x1, x, t), wrong, 1e-9)


def check_coupling(
    coupling: Coupling, space: Space, prior: Prior, sites: Sequence[int] = (3,) * 8,
    cond: Mapping[str, Tensor] | None = None, keeps_noise: bool = True, optimal: bool = False,
    seeds: Sequence[int] = (0, 1, 2),
) -> dict[str, float]:  # fmt: skip
    """Check the laws of a coupling: data are unchanged, no noise is lost or added, pairs do not get longer,
    padding stays padding, and the same seed gives the same pairs.

    Args:
        coupling: what is checked.
        space: an unbound space.
        prior: the distribution of the noise.
        sites: numbers of real sites of the samples of a test batch.
        cond: conditions that the coupling reads.
        keeps_noise: whether each noise is used once; symmetries may change it, but not its distance to
            the origin.
        optimal: whether the summed squared distance must be the least over all pairings.
        seeds: of torch's generator; the generator is left as it was.

    Returns:
        The largest error of each law.

    Raises:
        AssertionError: naming each law that fails with its error and tolerance.
    """
    laws = Laws(coupling)
    context = ragged(sites, cond=cond)
    s = space.bind(context)
    with torch.random.fork_rng([]):
        for seed in seeds:
            torch.manual_seed(seed)
            x0, x1 = (s.project(tree_map(lambda v: v.double(), prior.sample(space, context))) for _ in range(2))
            torch.manual_seed(seed)
            y0, y1, after = coupling.pair(s, x0, x1, context)
            torch.manual_seed(seed)
            laws.equal("the same seed gives the same pairs", coupling.pair(s, x0, x1, context)[0], y0, 0.0)
            laws.equal("data are untouched", y1, x1, 0.0)
            laws.holds("masks are untouched", torch.equal(after.mask, context.mask), "the mask changed")
            laws.equal("noise stays a point with its padding", s.project(y0), y0, 1e-9)
            before, now = (s.distance(a, b).square().sum() for a, b in ((x0, x1), (y0, y1)))
            laws.holds(
                "pairs do not get longer", now <= before * (1 + 1e-9), f"{float(before):.4g} rose to {float(now):.4g}"
            )
            if keeps_noise:
                start: Any = origin(s, torch.float64)
                now0, before0 = (s.distance(start, x).sort().values for x in (y0, x0))
                laws.equal("noise is kept", now0, before0, 1e-7)
            if optimal:
                laws.small("pairs are optimal", now - _least(s, x0, x1), 1e-7 * float(before))
    return laws.enforce()


def _least(s: Space, x0: State, x1: State) -> float:
    """The least sum of squared distances over all pairings."""
    from scipy.optimize import linear_sum_assignment

    n = len(s.dimension)
    rows = [s.distance(take(x0, torch.full((n,), i)), x1).square() for i in range(n)]
    cost = torch.stack(rows).numpy()
    i, j = linear_sum_assignment(cost)
    return float(cost[i, j].sum())
