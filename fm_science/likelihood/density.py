"""Densities of flows.

Along a flow the log-density of a moving point changes by minus the divergence of the velocity (Chen et al. 2018). So
the density of a data point is that of the noise it came from, minus the integral of the divergence. Log-density and
kinetic energy are two more coordinates of the state, ``Product(state=space, logp=line, energy=line)``, and any solver
integrates all of them together. With gradients on, this is maximum-likelihood training of a continuous normalising
flow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fm_science.likelihood.divergence import Divergence, ExactTrace, divergence, flatten
from fm_science.paths import Field, Path
from fm_science.priors import Prior
from fm_science.spaces import Euclidean, Product
from fm_science.state import Context, State, batch_size, leaves, scale, tree_map

if TYPE_CHECKING:
    from fm_science.solvers import Solver


Rate = Callable[[State, Tensor], Tensor]  #: the derivative of a potential by time, ``(x, t) -> (B,)``


@dataclass(frozen=True)
class DensityResult:
    """The noise of data, and their density.

    Attributes:
        noise: the state at the start of time.
        logp: log-density of the data in nats, ``(B,)``.
        energy: kinetic energy, the integral of |velocity|² over time, ``(B,)``.
        jacobian: the integral of the squared Frobenius norm of the velocity's derivative, estimated with one random
            direction, ``(B,)``; zero where it was not asked for.
        hjb: the integral of |ds/dt + |velocity|² / 2| for a velocity that is the gradient of s, ``(B,)``; zero where it
            was not asked for.
    """

    noise: State
    logp: Tensor
    energy: Tensor
    jacobian: Tensor
    hjb: Tensor


def integrate_log_prob(
    path: Path, predict: Callable[..., Any], x: State, prior: Prior, solver: Solver, steps: int | Tensor = 100,
    rule: Divergence = ExactTrace(), independent: bool = True, jacobian: bool = False, rate: Rate | None = None,
) -> DensityResult:  # fmt: skip
    """Integrate data back to noise with log-density and kinetic energy.

    Args:
        path: a bound path on a smooth space.
        predict: the network, ``(x, t) -> raw``.
        x: data at t = 1.
        prior: the distribution of the state at t = 0.
        solver: any solver for smooth spaces.
        steps: number of steps or a tensor of times in [0, 1]; a grid that ends before 1 gives the density of the
            distribution at its end.
        rule: how the trace is computed.
        independent: whether noise and data were independent in training.
        jacobian: whether the size of the velocity's derivative is integrated too.
        rate: where the velocity is the gradient of a potential s(x, t), its ds/dt ``(x, t) -> (B,)``, so that the
            residual of the Hamilton-Jacobi-Bellman equation is integrated too.

    Raises:
        TypeError: on spaces that are not smooth, and for priors without a density.
    """
    space = path.space
    suitable(path, solver)
    prior.log_prob(space, x)  # raises before the first step if the prior has no density
    grid = steps if torch.is_tensor(steps) else density_grid(path, steps)
    times = reverse_grid(path, grid, x)
    path.check(1 - times)
    x, gain = start_before_end(path, grid, times, x, independent)
    zero = torch.zeros_like(gain)
    whole, field = _augmented(path, predict, rule, x, False, jacobian, rate)
    more = dict.fromkeys(field.more, zero[:, None])
    end = solver.integrate(whole, field, {"state": x, "logp": gain[:, None], "energy": zero[:, None], **more}, times)
    logp = prior.log_prob(space, end["state"]) + end["logp"][:, 0]
    found = {name: end[name][:, 0] if name in field.more else zero for name in ("jacobian", "hjb")}
    return DensityResult(end["state"], logp, end["energy"][:, 0], **found)


def forward(
    path: Path, predict: Callable[..., Any], x: State, prior: Prior, solver: Any, steps: int | Tensor = 100,
    rule: Divergence = ExactTrace(), independent: bool = True,
) -> tuple[State, Tensor]:  # fmt: skip
    """Integrate noise ``x`` to data together with its log-density: one integration for both. The arguments and errors
    are those of :func:`integrate_log_prob`; a grid must start at t = 0.

    Returns:
        The state at the end of the grid, and its log-density in nats, ``(B,)``.
    """
    space = path.space
    suitable(path, solver)
    start = prior.log_prob(space, x)
    grid = steps if torch.is_tensor(steps) else density_grid(path, steps)
    if float(grid[0]) != 0:
        raise ValueError(f"steps starts at t = {float(grid[0]):.4g}: samples start at t = 0.")
    times = 1 - reverse_grid(path, grid, x).flip(0)
    path.check(times)
    whole, field = _augmented(path, predict, rule, x, forwards=True)
    begin = {"state": x, "logp": start[:, None], "energy": torch.zeros_like(start)[:, None]}
    end = solver.integrate(whole, field, begin, times)
    state, logp = end["state"], end["logp"][:, 0]
    if not _cut(path, grid, x):
        return state, logp
    late = torch.full_like(start, float(times[-1]))
    landed = path.step(predict(state, late), state, late, torch.ones_like(late))
    return landed, logp + path.start_before_end(landed, late, independent)[1]


def suitable(path: Path, solver: Any) -> None:
    """Raises TypeError if a path has no density that a solver could integrate."""
    space = path.space
    if not space.smooth:
        raise TypeError("a density needs a smooth space: classes move by random jumps. See likelihood.elbo.")
    if not space.geodesic:
        raise TypeError("a surface without a logarithm (Mesh) has no density here: compare samples instead.")
    if path.steep:
        raise TypeError(f"the velocity of {path!r} is infinite at t = 0, so there is no density.")
    if solver.two_times:
        raise TypeError(f"a density follows the velocity, and {solver!r} jumps over it. Use RK4() or Adaptive().")


def _augmented(
    path: Path, predict: Callable[..., Any], rule: Divergence, x: State, forwards: bool,
    jacobian: bool = False, rate: Rate | None = None,
) -> tuple[Field, _Augmented]:  # fmt: skip
    """The path and the field of (state, logp, energy), backwards in time or forwards."""
    first = leaves(x)[0]
    line = Euclidean(1, on="graph").bind(Context.full(batch_size(x)).to(first.device))
    field = _Augmented(path, predict, rule, x, forwards, jacobian, rate)
    lines = dict.fromkeys(("logp", "energy", *field.more), line)
    return Field(Product(state=path.space, **lines), error_parts=("state", "logp")), field


class _Augmented:
    """The velocity of (state, logp, energy) backwards in time or forwards, with probes that are drawn once."""

    def __init__(
        self, path: Path, predict: Callable[..., Any], rule: Divergence, x: State, forwards: bool,
        jacobian: bool, rate: Rate | None,
    ) -> None:  # fmt: skip
        self.path, self.predict, self.rule, self.forwards, self.rate = path, predict, rule, forwards, rate
        #: what is integrated beside density and energy
        self.more = (("jacobian",) if jacobian else ()) + (() if rate is None else ("hjb",))
        rest = path.space.log(x, x)
        self.probes = rule.draw(flatten(rest))
        self.signs = tree_map(lambda leaf: torch.randint_like(leaf, 0, 2) * 2 - 1, rest) if jacobian else None

    def __call__(self, state: dict[str, Any], r: Tensor) -> dict[str, Any]:
        x, t, path = state["state"], r if self.forwards else 1 - r, self.path
        velocity = lambda y: path.velocity(self.predict(y, t), y, t)  # noqa: E731
        u, trace = divergence(path.space, velocity, x, self.rule, self.probes)
        energy = path.space.inner(x, u, u)
        more = {} if self.signs is None else {"jacobian": _stretch(path.space, velocity, x, self.signs)[:, None]}
        if self.rate is not None:
            more["hjb"] = (self.rate(x, t) + 0.5 * energy).abs()[:, None]
        if not self.forwards:
            u = scale(-1.0, u)
        return {"state": u, "logp": -trace[:, None], "energy": energy[:, None], **more}


def _stretch(space: Any, velocity: Callable[[Any], Any], x: State, direction: State) -> Tensor:
    """The squared length of the change of a velocity along a direction, ``(B,)``; over random signs its mean is the
    squared Frobenius norm of the derivative."""
    change = torch.func.jvp(velocity, (x,), (space.tangent(x, direction),))[1]
    change = space.tangent(x, change)
    return space.inner(x, change, change)


def density_grid(path: Path, steps: int) -> Tensor:
    """``steps`` steps of [0, 1] for a density: equal, or where the velocity is undefined at t = 1 shrinking towards it
    like a cube, so that many of them are where the velocity is large."""
    if steps < 1:
        raise ValueError(f"steps={steps}: a density needs at least one step.")
    rest = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return 1 - rest**3 if path.singular else 1 - rest


def reverse_grid(path: Path, times: Tensor, x: State) -> Tensor:
    """The times of an integration backwards, counted from t = 1. A grid that ends at t = 1 starts a little later where
    the velocity is undefined there, by 1e-5 in float64 and 1e-3 in float32; any other is used as it is."""
    backwards = 1 - times.detach().double().cpu().flip(0)
    if not _cut(path, times, x):
        return backwards
    start = 1e-5 if leaves(x)[0].dtype == torch.float64 else 1e-3
    return torch.cat([times.new_tensor([start], dtype=torch.float64), backwards[backwards > 2 * start]])


def start_before_end(path: Path, grid: Tensor, times: Tensor, x: State, independent: bool) -> tuple[State, Tensor]:
    """The state at the first of ``times`` = reverse_grid(path, grid, x), and the log-density ``(B,)`` that it gains
    from the end of ``grid``: zero, unless the grid was shortened."""
    zero = leaves(x)[0].new_zeros(batch_size(x))
    return path.start_before_end(x, zero + 1 - float(times[0]), independent) if _cut(path, grid, x) else (x, zero)


def _cut(path: Path, times: Tensor, x: State) -> bool:
    """Whether a grid reaches t = 1, to the precision of the state, where the velocity is undefined."""
    return path.singular and 1 - float(times[-1]) < torch.finfo(leaves(x)[0].dtype).eps


def bits_per_dimension(logp: Tensor, dimension: Tensor | int, bin_width: float = 1.0) -> Tensor:
    """Negative log-likelihood in bits per dimension ``(B,)`` of data that were rounded to bins and dithered.

    Args:
        logp: log-density in nats of the data in their own units, ``(B,)``.
        dimension: degrees of freedom, as a number or ``(B,)``.
        bin_width: width of a bin in those units (2 / 255 for 8-bit images scaled to [-1, 1], 1 / 256 for [0, 1)).
    """
    return -(logp / dimension + math.log(bin_width)) / math.log(2)
