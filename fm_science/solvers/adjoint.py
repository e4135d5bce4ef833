"""Gradients of walks in constant memory, by the adjoint equation.

To differentiate through a solver one keeps what every step computed, so memory grows with the steps. The adjoint method
(Pontryagin 1962; Chen et al. 2018, section 2) keeps only the end: from there the state is walked back once more,
together with a = dL/dx, which obeys da/dt = -a . du/dx, and the integral of a . du/dtheta is the gradient by the
weights. The price is a second walk, and a gradient that is that of the equation rather than of its steps: the two
differ by the error of the solver. The walks are those of torchdiffeq.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fm_science.solvers.base import Predict, Solver
from fm_science.state import State, leaves, tree_map

if TYPE_CHECKING:
    from fm_science.paths import Path

METHODS = {"rk4": 4, "dopri5": 5}  #: of torchdiffeq, and their orders


@dataclass(frozen=True)
class Adjoint(Solver):
    """A walk by torchdiffeq whose gradient is found by the adjoint equation, on linear spaces.

    Args:
        parameters: the weights that are to get gradients; others get none.
        method: ``rk4`` walks the steps that are asked for with the classical rule of order four (Kutta's 3/8 rule);
            ``dopri5`` chooses its own (Dormand & Prince 1980).
        rtol, atol: tolerances of ``dopri5``, forwards and backwards.

    Raises:
        ValueError: for another method.
        TypeError: before the first step, on spaces that are not linear.
    """

    parameters: tuple[Tensor, ...] = field(repr=False)
    method: str = "rk4"
    rtol: float = 1e-6
    atol: float = 1e-6
    order = 4

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"Adjoint(method={self.method!r}): expected one of {', '.join(METHODS)}.")

    def check(self, path: Path) -> None:
        if not path.space.linear:
            raise TypeError(f"Adjoint() adds velocities as vectors, and {path.space!r} is no linear space: use RK4().")

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        return self.integrate(path, predict, x, torch.stack([t[0], t[0] + h[0]]))

    def waypoints(self, path: Path, times: Tensor) -> Tensor:
        return times if self.method == "rk4" else times[[0, -1]]

    def integrate(self, path: Path, predict: Predict, x: State, times: Tensor) -> State:
        from torchdiffeq import odeint_adjoint

        self.check(path)
        path.check(times)
        velocity = _Vectors(path, predict, x)
        grid = self.waypoints(path, times).to(leaves(x)[0])
        found = odeint_adjoint(
            velocity, tuple(leaves(x)), grid, rtol=self.rtol, atol=self.atol, method=self.method,
            adjoint_params=tuple(p for p in self.parameters if p.requires_grad),
        )  # fmt: skip
        return velocity.state([leaf[-1] for leaf in found])


class _Vectors(torch.nn.Module):
    """The velocity of a path on the leaves of a state, as torchdiffeq asks for it."""

    def __init__(self, path: Path, predict: Predict, like: State) -> None:
        super().__init__()
        self.path, self.predict, self.like = path, predict, like

    def state(self, values: list[Tensor]) -> State:
        """The state with these leaves."""
        pieces = iter(values)
        return tree_map(lambda leaf: next(pieces), self.like)

    def forward(self, t: Tensor, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, time = self.state(list(values)), t.expand(len(values[0])).clone()
        return tuple(leaves(self.path.velocity(self.predict(x, time), x, time)))
