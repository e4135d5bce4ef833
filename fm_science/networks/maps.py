"""Transport maps: networks that carry noise to data in one invertible jump.

A continuous flow follows a velocity for a while, and its density comes from an integral. A normalising flow (Rezende &
Mohamed 2015; Papamakarios et al. 2021) is a map T with an inverse and a Jacobian determinant that are known, so that
the density is exact: log p(x) = log p0(z) - log |det dT/dz| at z = T^-1(x). A :class:`TransportMap` is such a map in
the place of the network of a :class:`~fm_science.Flow`: sampling jumps from t = 0 to t = 1 with the solver
``FlowMap()``, and ``log_prob`` uses the determinant in place of an integral.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fm_science.errors import UserError
from fm_science.networks.base import Network
from fm_science.state import Context, State, add, leaves, rows, scale, tree_map

BISECTIONS = 60  # halvings that leave no bit of a double


class TransportMap(Network):
    """An invertible map T from noise to data on a linear space; states of any shape are seen as vectors ``(B, D)``,
    all of whose sites are real and free.

    Subclasses write :meth:`push` and :meth:`pull`. Between the ends there is no velocity: it raises UserError for every
    step but that from t = 0 to t = 1.
    """

    two_times = True

    @abstractmethod
    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """T at noise ``(B, D)``, and log |det dT/dz| ``(B,)``."""

    @abstractmethod
    def pull(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of T at data ``(B, D)``, and log |det| of its derivative ``(B,)``."""

    def carry(self, z: Tensor) -> Tensor:
        """T at noise ``(B, D)`` alone, where that costs less."""
        return self.push(z)[0]

    def to_data(self, x0: State) -> tuple[State, Tensor]:
        """A batch of noise carried to data, and the log-volume it gains ``(B,)``."""
        return _on_state(self.push, x0)

    def to_noise(self, x1: State) -> tuple[State, Tensor]:
        """A batch of data carried to noise, and the log-volume it gains ``(B,)``."""
        return _on_state(self.pull, x1)

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        """T(x) - x, the mean velocity of the jump from t = 0 to t = 1."""
        end = context.t_end
        if end is None or bool((t != 0).any()) or bool((end != 1).any()):
            raise UserError(
                f"{type(self).__name__} jumps from noise to data in one step and has no velocity on the way: leave "
                "solver and steps out"
            )
        return add(_on_state(lambda z: (self.carry(z), t), x)[0], scale(-1.0, x))


def _on_state(function: Callable[[Tensor], tuple[Tensor, Tensor]], x: State) -> tuple[State, Tensor]:
    """A map of vectors ``(B, D)`` at a state."""
    moved, volume = function(torch.cat([rows(leaf) for leaf in leaves(x)], 1))
    pieces = iter(moved.split([leaf[0].numel() for leaf in leaves(x)], 1))
    return tree_map(lambda leaf: next(pieces).reshape(leaf.shape), x), volume


class PlanarMap(TransportMap):
    """Planar layers z = x + u tanh(w . x + b), from data to noise (Rezende & Mohamed 2015, eq. 10). ``u`` is corrected
    so that w . u > -1, which makes each layer invertible (their appendix A.1). The inverse has no formula: along w it
    is the root of an increasing function, found by bisection to the last bit, with one step of Newton that carries the
    gradient.

    Args:
        features: coordinates of a state in all, D.
        layers: how many.
    """

    def __init__(self, features: int, layers: int = 8) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.zeros(layers, features))
        self.w = nn.Parameter(torch.randn(layers, features) / math.sqrt(features))
        self.b = nn.Parameter(torch.randn(layers))

    def _layers(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(u, w, b) of each layer, u corrected."""
        along = (self.u * self.w).sum(1, keepdim=True)
        # softplus(a + c) - 1 > -1, and 0 at a = 0
        wanted = nn.functional.softplus(along + math.log(math.e - 1)) - 1
        u = self.u + (wanted - along) * self.w / self.w.square().sum(1, keepdim=True)
        return list(zip(u, self.w, self.b, strict=True))

    def pull(self, x: Tensor) -> tuple[Tensor, Tensor]:
        volume = x.new_zeros(len(x))
        for u, w, b in self._layers():
            height = torch.tanh(x @ w + b)
            volume = volume + torch.log1p((1 - height.square()) * (u @ w))
            x = x + height[:, None] * u
        return x, volume

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        volume = z.new_zeros(len(z))
        for u, w, b in reversed(self._layers()):
            height = torch.tanh(_root(z @ w, u @ w, b) + b)
            volume = volume - torch.log1p((1 - height.square()) * (u @ w))
            z = z - height[:, None] * u
        return z, volume


def _root(target: Tensor, slope: Tensor, b: Tensor) -> Tensor:
    """The a with a + slope tanh(a + b) = target ``(B,)``, for slope > -1."""
    with torch.no_grad():
        low, high = target - slope.abs(), target + slope.abs()
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            under = middle + slope * torch.tanh(middle + b) < target
            low, high = torch.where(under, middle, low), torch.where(under, high, middle)
        a = 0.5 * (low + high)
        rate = 1 + slope * (1 - torch.tanh(a + b).square())
    return a - (a + slope * torch.tanh(a + b) - target) / rate


class ZukoMap(TransportMap):
    """RealNVP (Dinh, Sohl-Dickstein & Bengio 2017) or an autoregressive neural spline flow (Durkan et al. 2019), made
    of the layers of zuko.

    Args:
        kind: ``realnvp`` or ``spline``.
        features: coordinates of a state in all, D.
        layers: transformations one after another.
        width: hidden features of the two hidden layers of each.

    Raises:
        UserError: where zuko is not installed.
        ValueError: for another kind.
    """

    def __init__(self, kind: str, features: int, layers: int = 4, width: int = 64) -> None:
        super().__init__()
        if kind not in ("realnvp", "spline"):
            raise ValueError(f"ZukoMap(kind={kind!r}): expected realnvp or spline.")
        try:
            from zuko.flows import NSF, RealNVP
        except ImportError as error:
            raise UserError(f"{kind} layers need zuko: pip install 'fm-science[table]'") from error
        made = RealNVP if kind == "realnvp" else NSF
        self.layers: nn.Module = made(features, transforms=layers, hidden_features=(width, width))

    def pull(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, volume = self.layers().transform.call_and_ladj(x)
        return z, volume

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, volume = self.layers().transform.inv.call_and_ladj(z)
        return x, volume
