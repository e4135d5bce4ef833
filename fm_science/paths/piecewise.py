"""A path through several marginals, on one clock: between two neighbouring times it is a path of its own.

The network is one velocity field over all of [0, 1]. Each training pair joins a datum at the time t_k with one at the
time t_(k-1) before, by whatever coupling (Tong et al. 2024, section 5.3; Tong, Huang, Wolf, van Dijk & Krishnaswamy
2020 for the setting). Trained on exact couplings, the flow is the piecewise geodesic through the marginals in the space
of laws, and carries samples from any time to any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.declarations import derived
from fm_science.paths.base import Path
from fm_science.paths.bridge import Bridge
from fm_science.predictions import Velocity
from fm_science.priors import Prior
from fm_science.priors.snapshots import TIME, pieces
from fm_science.spaces.base import Space
from fm_science.state import Context, State, scale, tree_map, zip_leaves

EDGE = 1e-3  #: how far beyond its interval, as a share of it, a time may lie by rounding


@dataclass(frozen=True)
class Piecewise(Path):
    """x_t = y_s between t_(k-1) and t_k, with s = (t - t_(k-1)) / (t_k - t_(k-1)) and y the path of that interval from
    its state x0 at t_(k-1) to its datum x1 at t_k. In training the condition "time" ``(B,)`` says which t_k a datum
    belongs to (:meth:`~fm_science.Snapshots.draw` gives it); walks need none.

    Only velocities are predicted: an endpoint would be another one in each interval. Walks go from any time to any
    later one, by the grid that is given as ``steps``, and back with ``reverse``; a grid should hold the times between.

    Args:
        path: of an interval; its parts predict Velocity().
        times: t_1 = 0 to t_K = 1, increasing: ``Snapshots.clock_times``.

    Raises:
        TypeError: for paths with other predictions.
        ValueError: for times that do not increase from 0 to 1; when bound to a "time" that is none of them.
    """

    path: Path
    times: Sequence[float]
    start: Tensor | None = field(default=None, repr=False, compare=False)
    length: Tensor | None = field(default=None, repr=False, compare=False)
    has_endpoint = False
    singular = False

    def __post_init__(self) -> None:
        grid = torch.tensor(tuple(self.times), dtype=torch.float64)
        if len(grid) < 2 or grid[0] != 0 or grid[-1] != 1 or bool((grid.diff() <= 0).any()):
            raise ValueError(f"times={tuple(self.times)}: expected times that increase from 0 to 1.")
        for (leaf,) in zip_leaves(self.path):
            if not (isinstance(leaf, Bridge) and isinstance(leaf.predicts, Velocity)):
                raise TypeError(f"a path in pieces predicts velocities, and {leaf!r} does not: use Geodesic(space).")

    @derived
    def space(self) -> Space:
        return self.path.space

    @derived
    def parts(self) -> Mapping[str, Path]:
        return self.path.parts

    @property
    def predicts(self) -> Any:
        """What the network's output means: the velocity on the whole clock."""
        return Velocity()

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]] | tuple[int, ...] | None:
        return self.path.outputs

    def bind(self, context: Context, prior: Prior | None = None) -> Piecewise:
        bound = replace(self, path=self.path.bind(context, prior))
        if TIME not in context.cond:
            return bound
        k, ends = pieces(self.times, context), torch.tensor(tuple(self.times)).to(context.cond[TIME])
        if bool(((context.cond[TIME] - ends[k + 1]).abs() > 1e-4).any()):
            raise ValueError(f"the batch has data at times that are none of {self.times[1:]}; see Snapshots.clock.")
        return replace(bound, start=ends[k], length=ends[k + 1] - ends[k])

    def _piece(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Where the interval of each sample begins, and how long it is, each ``(B,)``."""
        if self.start is None or self.length is None:
            raise ValueError(f"data of a path in pieces carry the condition {TIME!r}, one of {self.times[1:]}.")
        return self.start.to(like), self.length.to(like)

    def place_times(self, s: Tensor) -> Tensor:
        start, length = self._piece(s)
        return start + length * s

    def _within(self, t: Tensor) -> Tensor:
        """The time in the interval of each sample, from 0 to 1."""
        start, length = self._piece(t)
        s = (t - start) / length
        if t.device.type == "cpu" and bool(((s < -EDGE) | (s > 1 + EDGE)).any()):  # an accelerator is not waited for
            raise ValueError("a pair of snapshots has no point outside its interval: train with FlowMatching.")
        return s.clamp(0, 1)

    def sample(self, x0: State, x1: State, t: Tensor) -> State:
        return self.path.sample(x0, x1, self._within(t))

    def loss(self, raw: State, x0: State, x1: State, x: State, t: Tensor) -> State:
        length = self._piece(t)[1]
        loss = self.path.loss(scale(length, raw), x0, x1, x, self._within(t))
        return tree_map(lambda part: part / length.square(), loss)

    def velocity(self, raw: State, x: State, t: Tensor) -> State:
        return self.space.tangent(x, raw)

    def step(self, raw: State, x: State, t: Tensor, s: Tensor) -> State:
        return self.space.exp(x, scale(s - t, self.velocity(raw, x, t)))

    def endpoint(self, raw: State, x: State, t: Tensor) -> State:
        raise TypeError(f"{self!r} has an end in each interval: it tells velocities. Use Heun() or RK4().")

    def modules(self) -> list[nn.Module]:
        return self.path.modules()
