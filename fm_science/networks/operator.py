"""An operator on functions at scattered sensors: attention as an integral.

Sensors may stand anywhere and differ from function to function. A small set of latent tokens listens to all sensors,
thinks, and is listened to by them, in turns (Jaegle et al. 2022). A token's attention to the sensors is a weighted mean
over the domain, and the quadrature weights of the sensors stand in it, so that it is the same integral however densely
the sensors stand. Time steers every round (Perez et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fm_science.declarations import renamed_keywords
from fm_science.errors import OptionError
from fm_science.networks.base import Network
from fm_science.networks.time import TimeEmbedding
from fm_science.state import Context


class Attention(nn.Module):
    """Multi-head attention of queries ``(B, M, width)`` to keys ``(B, N, width)``, each key with a weight of its own.
    Written out, since fused kernels have no forward-mode derivatives."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask, self.tell, self.mix = (nn.Linear(width, k * width) for k in (1, 2, 1))

    def forward(self, query: Tensor, key: Tensor, log_weight: Tensor | None = None) -> Tensor:
        """``log_weight`` ``(B, N)`` is added to the logits; -inf hides a key."""
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.ask(query), *self.tell(key).chunk(2, -1))
        )
        logits = q @ k.mT / math.sqrt(q.shape[-1])
        if log_weight is not None:
            logits = logits + log_weight[:, None, None]
        return self.mix((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Steered(nn.Module):
    """Layer norm whose scale and shift come from the clock ``(B, features)``."""

    def __init__(self, width: int, clock: int) -> None:
        super().__init__()
        self.norm, self.clock = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(clock, 2 * width)

    def forward(self, h: Tensor, clock: Tensor) -> Tensor:
        scale, shift = self.clock(clock)[:, None].chunk(2, -1)
        return self.norm(h) * (1 + scale) + shift


class Round(nn.Module):
    """Tokens listen to sensors and to each other, then sensors listen to tokens; each also thinks by itself."""

    def __init__(self, width: int, heads: int, clock: int) -> None:
        super().__init__()
        self.attend = nn.ModuleList(Attention(width, heads) for _ in range(3))
        self.steer = nn.ModuleList(Steered(width, clock) for _ in range(6))
        self.think = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(2)
        )

    def forward(self, h: Tensor, z: Tensor, log_weight: Tensor, clock: Tensor) -> tuple[Tensor, Tensor]:
        """Sensors ``(B, N, width)`` and tokens ``(B, M, width)``, both updated."""
        listen, share, answer = self.attend
        s = self.steer
        z = z + listen(s[0](z, clock), s[1](h, clock), log_weight)
        own = s[2](z, clock)
        z = z + share(own, own)
        z = z + self.think[0](s[3](z, clock))
        h = h + answer(s[4](h, clock), z)
        return h + self.think[1](s[5](h, clock)), z


@renamed_keywords(waves="fourier_features")
class LatentOperator(Network):
    """A velocity or endpoint of functions at any sensors ``cond["coords"]`` ``(B, N, d)`` with quadrature weights
    ``cond["weights"]`` ``(B, N)`` (default: equal). Costs grow with N times the number of tokens.

    Args:
        channels: values at a sensor.
        dim: coordinates of a sensor; they are expected within about [0, 1].
        width: channels inside, a multiple of ``heads``.
        layers: rounds.
        heads: attention heads.
        tokens: latent tokens.
        fourier_features: half-waves per unit of length, 1 to ``waves``, that describe a coordinate.
        reads: conditions ``(B, N)`` or ``(B, N, k)`` that are shown beside the values, by name with k; absent ones and
            NaN are shown as zeros.
    """

    def __init__(
        self, channels: int, dim: int, width: int = 64, layers: int = 3, heads: int = 4, tokens: int = 32,
        fourier_features: int = 16, reads: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if width % heads:
            raise OptionError(f"width={width} is no multiple of heads={heads}.")
        self.channels, self.dim, self.fourier_features, self.reads = channels, dim, fourier_features, dict(reads or {})
        inputs = channels + sum(self.reads.values()) + dim * (2 * fourier_features + 1)
        self.embed = nn.Sequential(
            TimeEmbedding(64, highest=100.0), nn.Linear(64, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width)
        )
        self.gain = nn.Linear(2 * width, channels)
        self.lift = nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.tokens = nn.Parameter(torch.randn(tokens, width))
        self.rounds = nn.ModuleList(Round(width, heads, 2 * width) for _ in range(layers))
        self.lower = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, channels))

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """``x`` ``(B, N, channels)`` at times ``t`` ``(B,)`` to raw output of the same shape.

        Raises:
            ValueError: for sensors without coordinates of this network's dimension.
        """
        coords = context.cond.get("coords")
        if coords is None or coords.shape[-1] != self.dim:
            raise ValueError(
                f"this operator needs the places of the sensors, cond['coords'] of shape (B, N, {self.dim}); got "
                f"{None if coords is None else tuple(coords.shape)}."
            )
        clock = self.embed(t.to(x))
        h, z = self.lift(self._inputs(x, coords.to(x), context)), self.tokens.expand(len(x), -1, -1)
        weights = context.cond.get("weights")
        weights = torch.ones_like(x[..., 0]) if weights is None else weights.to(x)
        seen = context.mask & (weights > 0)
        log_weight = torch.where(seen, torch.where(seen, weights, 1.0).log(), -torch.inf)
        for step in self.rounds:
            h, z = step(h, z, log_weight, clock)
        return self.lower(h) + self.gain(clock)[:, None] * x

    def _inputs(self, x: Tensor, coords: Tensor, context: Context) -> Tensor:
        """Everything that is known at each sensor, ``(B, N, inputs)``."""
        k = torch.arange(1, self.fourier_features + 1, device=x.device, dtype=x.dtype)
        phase = (math.pi * coords[..., None] * k).flatten(2)
        columns = [x, coords, phase.sin(), phase.cos()]
        for name, k_ in self.reads.items():
            value = context.cond.get(name)
            value = x.new_zeros(*x.shape[:2], k_) if value is None else value.to(x).reshape(*x.shape[:2], k_)
            columns.append(torch.nan_to_num(value))
        return torch.cat(columns, -1)
