"""Posterior sampling: sample data given an observation, from a flow that was trained without it.

On the paths x_t = alpha x1 + sigma x0 with Gaussian noise of covariance S, a network that predicts the data point D(x,
t) = E[x1 | x_t = x] also gives its uncertainty: the covariance of x1 given x_t is

    C = sigma² / alpha S (dD/dx)^T        (Meng et al. 2021; Boys et al. 2024)

For an observation y = A(x1) + noise the prediction is updated by the step of a Kalman filter,

    D - C A^T (A C A^T + noise² I)^-1 (A(D) - y)        (Rozet et al. 2024, MMPS; Boys et al. 2024, TMPD)

where A stands for its derivative at D. That is exact for Gaussian data and linear observations. With a multiple of the
identity for C it is pseudo-inverse guidance (Song et al. 2023), with C = 0 in the inverse it is diffusion posterior
sampling (Chung et al. 2023). Only products with the Jacobians of network and observation are ever computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fm_science.networks import Network, NetworkFunction, WrappedNetwork, as_network
from fm_science.paths import Bridge, Path, ProductPath
from fm_science.priors import Normal, Prior, ProductPrior
from fm_science.spaces.base import BoundLeaf
from fm_science.state import Context, State, expand_like, rows, scale

LAST = 1 - 1e-6  #: at t = 1 the update is a limit: zero over zero

Keys = tuple[str, ...]  #: the names that lead to a part of a state


class PosteriorGuided(WrappedNetwork):
    """A network whose flow samples the distribution of the data given an observation y = A(x1) + noise.

    Parts on linear spaces with Gaussian noise are guided: vectors, images, clouds, functions. Other parts of a product
    follow the network, which sees the guided parts; the observation cannot depend on them. The noise of the guided
    parts must have been independent of the data in training. Exact for Gaussian data and linear A, to the precision of
    the linear solve; elsewhere C is the network's own estimate, and the distribution of x1 given x_t is approximated by
    a Gaussian. Gradients are computed inside, also under ``torch.no_grad``.

    Args:
        network: the trained network.
        path: of the flow, not bound.
        residual: ``(x1) -> (B, ...)``, A(x1) - y, differentiable; for a product ``x1`` is a dict of the guided parts.
        noise: standard deviation of the noise of the observation, positive: a number, or a tensor that broadcasts
            against the residual.
        prior: the distribution of the noise x0; ``None``: that of the flow, and Normal() if the network is called
            alone.
        iterations: products with the Jacobians per step. Up to that many observations the linear system is solved
            directly, beyond that by this number of steps of conjugate gradients.
        start: earlier times, and smaller alpha, are replaced by this one: at t = 0 x does not depend on the data point.

    Raises:
        TypeError: if no part of the path can be guided, or the observation depends on one that cannot.
        ValueError: for noise that is not positive, and for residuals that are not one row per sample.
    """

    def __init__(
        self, network: NetworkFunction, path: Path, residual: Callable[[Any], Tensor], noise: float | Tensor,
        prior: Prior | None = None, iterations: int = 8, start: float = 1e-3,
    ) -> None:  # fmt: skip
        super().__init__(network)
        if not bool((torch.as_tensor(noise) > 0).all()):
            raise ValueError(f"noise={noise!r}: the standard deviation of the observation's noise must be positive.")
        if iterations < 1:
            raise ValueError(f"iterations={iterations}: at least one product with the Jacobians is needed.")
        if not _linear(path):
            raise TypeError(_refusal(path))
        self.path, self.residual, self.noise = path, residual, noise
        self.prior, self.iterations, self.start = prior, iterations, start

    def along(self, path: Path) -> Network:
        """The network on the bound path of an integration, with the distribution of its noise."""
        if self.prior is not None:
            return self
        guided = as_network(partial(self._guided, path))
        guided.self_conditioned = self.self_conditioned
        return guided

    def forward(self, x: State, t: Tensor, context: Context) -> Any:
        prior = self.prior if self.prior is not None else _standard(self.path)
        return self._guided(self.path.bind(context, prior), x, t, context)

    def _guided(self, path: Path, x: State, t: Tensor, context: Context) -> Any:
        """The raw output at ``x`` that predicts the data point given the observation."""
        parts = guided_parts(path)
        if not parts:
            raise TypeError(_refusal(path))
        when = t.clamp_min(self.start)
        late = when.clamp_max(LAST)

        def predicted(*z: Tensor) -> tuple[tuple[Tensor, ...], Any]:
            y = put(x, dict(zip(parts, z, strict=True)))
            raw = self.network(y, when, context)
            return tuple(p.endpoint(at(raw, k), at(y, k), late) for k, p in parts.items()), raw

        pulled: Any = torch.func.vjp(predicted, *(at(x, k) for k in parts), has_aux=True)
        x1hat, pull, raw = pulled
        residual = partial(self._whitened, path, list(parts))
        whitened: Any = torch.func.vjp(residual, *x1hat)
        r, back = whitened
        gains = [self._gain(p, late) for p in parts.values()]

        def spread(w: Tensor) -> tuple[Tensor, ...]:
            """C A^T w."""
            slopes = zip(parts.values(), gains, pull(back(w)), strict=True)
            return tuple(scale(g, p.space.tangent(u, _noise(p).correlate(p.space, u))) for p, g, u in slopes)

        def total(w: Tensor) -> Tensor:
            """(A C A^T + 1) w, of observations in units of their noise."""
            return w + torch.func.jvp(residual, x1hat, spread(w))[1]

        solve = _direct if r.shape[1] <= self.iterations else _conjugate
        moves = zip(parts.items(), spread(solve(total, r, self.iterations)), strict=True)
        return put(raw, {k: at(raw, k) - scale(1 / _answer(p, late), u) for (k, p), u in moves})

    def _gain(self, part: Bridge, t: Tensor) -> Tensor:
        """sigma² / alpha, ``(B,)``."""
        return part.sigma(t).square() / part.schedule(t)[0].clamp_min(self.start)

    def _whitened(self, path: Path, names: Sequence[Keys], *x1: Tensor) -> Tensor:
        """The residual in units of its noise, ``(B, M)``."""
        try:
            r = self.residual(nest(dict(zip(names, x1, strict=True))))
        except KeyError as error:
            if isinstance(path, ProductPath) and error.args[0] in path.parts:
                raise TypeError(f"the observation needs the part {error.args[0]!r}. {_refusal(path)}") from error
            raise
        if not torch.is_tensor(r) or r.ndim == 0 or len(r) != len(x1[0]):
            given = tuple(r.shape) if torch.is_tensor(r) else type(r).__name__
            raise ValueError(
                f"the residual gave {given}; expected one row of observations per sample, ({len(x1[0])}, ...)"
            )
        noise = self.noise.to(r) if torch.is_tensor(self.noise) else self.noise
        return rows(r / noise)


def guided_parts(path: Path, keys: Keys = ()) -> dict[Keys, Bridge]:
    """The parts of a bound path that an observation can guide: paths on linear spaces with Gaussian noise."""
    return {k: p for k, p in _linear(path, keys).items() if p.has_score}


def check_untied(path: Path, untied: Sequence[str]) -> None:
    """Raises TypeError if noise and data of a guided part of a bound path were dependent in training."""
    tied = sorted(".".join(k) for k in guided_parts(path) if not k or k[0] not in untied)
    if tied:
        raise TypeError(
            "PosteriorGuided needs the covariance of the data, and this flow was trained with a coupling that ties "
            "noise to data: then the network does not give it. Train with Independent()."
        )


def _linear(path: Path, keys: Keys = ()) -> dict[Keys, Bridge]:
    """The leaf paths that add noise on linear spaces, by their keys."""
    if isinstance(path, ProductPath):
        return {k: p for name, part in path.parts.items() for k, p in _linear(part, (*keys, name)).items()}
    return {keys: path} if isinstance(path, Bridge) and path.space.linear else {}


def _standard(path: Path) -> Prior:
    """Standard normal noise on every part; only linear parts use it."""
    if isinstance(path, ProductPath):
        return ProductPrior(**{k: _standard(p) for k, p in path.parts.items()})
    return Normal()


def _refusal(path: Path) -> str:
    can = sorted(".".join(k) for k in _linear(path) if k)
    here = f"here {can}; leave others out." if can else f"and {path!r} has none: weight samples by their likelihood."
    return f"PosteriorGuided observes parts on linear spaces with Gaussian noise, on Geodesic or Gaussian paths, {here}"


def _noise(part: Bridge) -> Prior:
    """The distribution of the noise of a bound part that has a score."""
    assert part.prior is not None
    return part.prior


def _answer(part: Bridge, t: Tensor) -> Tensor:
    """The derivative of the predicted data point of a bound part with respect to the raw output, ``(B,)``. It is
    computed from the path itself, by a centred pair of points."""
    leaf: Any = part.space.leaf if isinstance(part.space, BoundLeaf) else part.space
    one = t.new_ones(len(t), 1, *leaf.event)
    pair = torch.cat([one, -one], 1)
    moved = replace(part, space=leaf).endpoint(pair, torch.zeros_like(pair), t)
    return moved[:, 0].flatten(1)[:, 0]


def _direct(total: Callable[[Tensor], Tensor], r: Tensor, iterations: int) -> Tensor:
    """The solution of total(w) = r from the whole matrix, one product per row. An inexact network's matrix may be
    neither symmetric nor positive: its symmetric part is used, with eigenvalues below the noise raised to it."""
    count = r.shape[1]
    axes = torch.eye(count, dtype=r.dtype, device=r.device)
    matrix = torch.stack([total(axis.expand_as(r)) for axis in axes], -1)
    matrix = 0.5 * (matrix + matrix.mT)
    least = torch.linalg.eigvalsh(matrix.detach()).amin(-1)
    matrix = matrix + expand_like((1 - least).clamp_min(0), matrix) * axes
    return torch.linalg.solve(matrix, r[..., None])[..., 0]


def _conjugate(total: Callable[[Tensor], Tensor], r: Tensor, iterations: int) -> Tensor:
    """The solution of total(w) = r by conjugate gradients (Hestenes & Stiefel 1952), one system per sample. The matrix
    is at least one; where that of an inexact network is below, one is used."""
    tiny = torch.finfo(r.dtype).tiny
    w, left, way = torch.zeros_like(r), r, r
    size = left.square().sum(1, keepdim=True)
    for _ in range(iterations):
        image = total(way)
        curvature = torch.maximum((way * image).sum(1, keepdim=True), way.square().sum(1, keepdim=True))
        step = size / curvature.clamp_min(tiny)
        w, left = w + step * way, left - step * image
        size, before = left.square().sum(1, keepdim=True), size
        way = left + size / before.clamp_min(tiny) * way
    return w


def at(x: Any, keys: Keys) -> Any:
    """The part of a state under these keys."""
    for key in keys:
        x = x[key]
    return x


def put(x: Any, values: Mapping[Keys, Any], keys: Keys = ()) -> Any:
    """A state with some of its tensors replaced."""
    if keys in values:
        return values[keys]
    return {k: put(v, values, (*keys, k)) for k, v in x.items()} if isinstance(x, Mapping) else x


def nest(values: Mapping[Keys, Any]) -> Any:
    """A state from its tensors by their keys."""
    if () in values:
        return values[()]
    names = dict.fromkeys(k[0] for k in values)
    return {name: nest({k[1:]: v for k, v in values.items() if k[0] == name}) for name in names}
