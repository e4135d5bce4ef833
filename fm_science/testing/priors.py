"""The laws of priors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fm_science.priors import Prior
from fm_science.spaces import Space
from fm_science.spaces.base import total
from fm_science.spaces.flat import BoundFunctions
from fm_science.state import Context, State, leaves, tree_map
from fm_science.symmetries import Symmetry
from fm_science.testing.laws import Laws, log_stretch, narrow, origin, ragged, widen


def check_prior(
    prior: Prior, space: Space, sites: Sequence[int] = (1, 3, 5, 2), cond: Mapping[str, Tensor] | None = None,
    symmetries: Sequence[Symmetry] = (), density: Context | None = None, draws: int = 20_000, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Check the laws of a prior: samples are points, padding is at the origin, the same seed gives the same sample,
    each symmetry leaves the density unchanged, the density integrates to one and is that of the samples.

    Integrals are sums over random points; a law fails beyond five standard errors plus two percent.

    Args:
        prior: what is checked.
        space: the unbound space of the prior.
        sites: numbers of real sites of the samples of a test batch.
        cond: conditions that the prior reads, for that batch.
        symmetries: transformations that leave the distribution unchanged.
        density: one sample for which the density is integrated; default one site (two on edges and centred clouds).
        draws: random points in each integral.
        seed: of torch's generator; the generator is left as it was.

    Returns:
        The largest error of each law; the errors of integrals are in standard errors.

    Raises:
        AssertionError: naming each law that fails with its error and tolerance.
    """
    laws = Laws(prior)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        context = ragged(sites, cond=cond)
        s = space.bind(context)
        x = _draws(laws, prior, space, s, context, seed)
        try:
            log = prior.log_prob(s, x)
        except TypeError:
            return laws.enforce()
        laws.holds("log_prob is one number per sample", log.shape == (len(sites),), f"shape is {tuple(log.shape)}")
        laws.finite("log_prob is finite", log)
        for symmetry in symmetries:
            moved = prior.log_prob(s, symmetry.randomise(s, x))
            laws.equal(f"log_prob is unchanged by {symmetry!r}", moved, log, 1e-4)
        _additivity(laws, prior, space, s, x, sites, context, log)
        _integrals(laws, prior, space, density, draws)
    return laws.enforce()


def _draws(laws: Laws, prior: Prior, space: Any, s: Any, context: Context, seed: int) -> State:
    torch.manual_seed(seed)
    x = prior.sample(space, context)
    torch.manual_seed(seed)
    laws.equal("the same seed gives the same draw", prior.sample(s, context), x, 0.0)
    laws.finite("draws are finite", x)
    laws.equal("draws are points", s.project(x), x, 1e-5)
    wanted = torch.get_default_dtype()
    laws.holds("draws have the default dtype", all(v.dtype == wanted for v in leaves(x)), f"some are not {wanted}")
    return x


def _additivity(
    laws: Laws, prior: Prior, space: Any, s: Any, x: State, sites: Sequence[int], context: Context, log: Tensor
) -> None:  # fmt: skip
    """More padding changes no density."""
    extra, n = 2, context.mask.shape[1]
    sensors = {"weights", "coords"} & set(context.cond)
    cond = {k: _padded(v, n, extra) if k in sensors else v for k, v in context.cond.items()}
    cond.pop("grid", None)  # padding would not be on the grid
    wide = space.bind(ragged(sites, extra, cond))
    y = wide.project(widen(wide, x, extra))
    laws.equal("padding keeps draws", narrow(wide, y, extra), x, 1e-5)
    laws.equal("padding changes no density", prior.log_prob(wide, y), log, 1e-4)


def _padded(v: Tensor, n: int, extra: int) -> Tensor:
    return torch.cat([v, v.new_zeros(len(v), extra, *v.shape[2:])], 1)


def _integrals(laws: Laws, prior: Prior, space: Any, density: Context | None, draws: int) -> None:
    if space.parts:
        for name, part in space.parts.items():
            _integrals(laws, prior.parts[name], part, density.part(name) if density else None, draws)
        return
    one = density or ragged([2 if space.on == "edges" or space.centred else 1])
    many = Context(one.mask.expand(draws, -1), {k: v.expand(draws, *v.shape[1:]) for k, v in one.cond.items()})
    s = space.bind(many)
    if not space.smooth:
        _frequencies(laws, prior, space, s, many)
        return
    x = tree_map(lambda v: v.double(), prior.sample(space, many))
    start: Any = origin(s, torch.float64)
    spread = s.distance(start, x) if math.isinf(space.volume) else None
    y, weight = _proposals(space, s, start, spread)
    weight = (prior.log_prob(s, y) + weight).exp()
    _agree(laws, "the density integrates to one", weight, torch.ones_like(weight))
    log = prior.log_prob(s, x)
    size, moved = (s.distance(start, z).clamp_max(10.0) if space.volume == math.inf else _height(s, z) for z in (x, y))
    _agree(laws, "draws have the density: mean size", weight * moved, size)
    _agree(laws, "draws have the density: entropy", weight * prior.log_prob(s, y).clamp(-30, 30), log.clamp(-30, 30))


def _height(s: Any, x: Tensor) -> Tensor:
    """A bounded function on a compact space that is not symmetric."""
    return x.flatten(1).cos().mul(torch.arange(1.0, 1 + x[0].numel(), dtype=x.dtype)).sum(1)


def _proposals(space: Any, s: Any, start: Tensor, spread: Tensor | None) -> tuple[Tensor, Tensor]:
    """Random points, uniform or normal around the origin, and minus the logs of their densities."""
    if spread is None:
        y = s.project(space.uniform(s.mask.shape, start))
        return y, total(s.mask) * math.log(space.volume)
    std = 1.2 * float((spread.square() / s.dimension).mean().sqrt())
    g = s.gaussian(start)
    square, d = s.inner(start, g, g), s.dimension
    minus = 0.5 * square + d * (0.5 * math.log(2 * math.pi) + math.log(std))
    if isinstance(s, BoundFunctions):  # lengths of functions are weighted, their Gaussian tangents are not
        minus = minus + 0.5 * (g.square().flatten(1).sum(1) - square)
    return s.exp(start, std * g), minus + (0.0 if space.linear else total(log_stretch(s, start, std * g)))


def _agree(laws: Laws, law: str, a: Tensor, b: Tensor) -> None:
    """Two means must agree within five standard errors plus two percent."""
    error = float((a.mean() - b.mean()).abs())
    noise = float(((a.var() + b.var()) / len(a)).sqrt())
    allowed = 5 * noise + 0.02 * max(float(b.mean().abs()), 1e-3)
    laws.errors[law] = max(laws.errors.get(law, 0.0), error / max(noise, 1e-12) if error > 1e-9 else 0.0)
    if not error <= allowed:
        laws.broken[law] = f"{float(a.mean()):.4g} against {float(b.mean()):.4g}, allowed difference {allowed:.2g}"


def _frequencies(laws: Laws, prior: Prior, space: Any, s: Any, context: Context) -> None:
    """Probabilities add up to one and are the frequencies of draws."""
    x, k = prior.sample(space, context), space.classes
    corners = torch.eye(k)[torch.arange(len(context.mask)) % k].reshape(-1, *[1] * (s.mask.ndim - 1), k)
    p = prior.log_prob(s, s.apply_constraints(corners.expand(s.shape)))[:k].exp()
    laws.small("probabilities add up to one", p.sum() - 1, 1e-5)
    site = s.counted_mask.reshape(len(s.mask), -1)[0].to(torch.uint8).argmax()
    found = x.reshape(len(s.mask), -1, k)[:, site].mean(0)
    laws.small("draws have the probabilities", found - p, 5 * (0.25 / len(context.mask)) ** 0.5)
