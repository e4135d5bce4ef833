"""An equivariant graph network on point clouds: points move along the lines that join them.

Every pair of points exchanges a message made of what both know and how far apart they are. A point then moves by a sum
of arrows towards and away from the others, each as long as its message says. Distances do not change when a cloud is
moved, turned or mirrored, and arrows turn along with it; sums do not care about order. So the network commutes with
all of these, whatever its weights (Satorras, Hoogeboom & Welling 2021, equations 3 to 6).

Distances reach the messages as smooth bumps, since energies change within a small fraction of the
size of a cloud. All pairs are dense: memory grows with the square of the number of points. Where both points of a pair
may share one message, half of them suffice (:class:`MutualLayer`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_science.declarations import renamed_keywords
from fm_science.networks.base import Network
from fm_science.networks.sites import NodeEmbedding, remove_mean
from fm_science.state import Context

TINY = 1e-10  # added to squared distances, so that the distance of a point to itself has a gradient


class Bumps(nn.Module):
    """Distances as smooth bumps (1 - z²)³ evenly spaced from 0 to ``reach``, and the logarithm of the distance.

    Each bump spans three spacings on either side; a polynomial costs a tenth of a Gaussian.

    Args:
        count: number of bumps.
        reach: centre of the last one, in the units of the distances.
    """

    centre: Tensor

    def __init__(self, count: int, reach: float) -> None:
        super().__init__()
        self.register_buffer("centre", torch.linspace(0, reach, count))
        self.width, self.features = 3 * reach / max(count - 1, 1), count + 1

    def forward(self, square: Tensor) -> Tensor:
        """Squared distances ``(...)`` to ``(..., count + 1)``."""
        d = (square + TINY).sqrt()[..., None]
        inside = torch.relu(1 - ((d - self.centre) / self.width).square())
        return torch.cat([inside * inside.square(), torch.log1p(square)[..., None]], -1)


def reluctant(width: int) -> nn.Sequential:
    """Two layers from a message to one number, which is small at first."""
    last = nn.Linear(width, 1)
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.zero_()
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), last)


class EquivariantLayer(nn.Module):
    """One round of messages between all pairs of real points.

    Args:
        width: channels of a point and of a message.
        radial: features of a distance.
        edges: features of a pair beside its distance, such as the kind of bond.
        listens: whether points update their features too; the last round need not, where only positions count.
    """

    def __init__(self, width: int, radial: int, edges: int = 0, listens: bool = True) -> None:
        super().__init__()
        self.sender, self.receiver = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.pair = nn.Linear(radial + edges, width, bias=False)
        self.message = nn.Linear(width, width)
        self.shift = reluctant(width)
        self.listens = listens
        if listens:
            self.gate = nn.Linear(width, 1)
            self.update = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, h: Tensor, radial: Tensor, pairs: AllPairs) -> tuple[Tensor, Tensor]:
        """Positions ``(B, N, D)`` and features ``(B, N, width)``, both updated; ``radial`` are the features of pairs
        ``(B, N, N, radial + edges)``, receiver first."""
        m = self.receiver(h)[:, :, None] + self.sender(h)[:, None] + self.pair(radial)
        m = F.silu(self.message(F.silu(m)))
        if self.listens:
            heard = (pairs.real[..., None] * torch.sigmoid(self.gate(m)) * m).sum(2) / pairs.neighbours
            h = h + self.update(torch.cat([h, heard], -1))
        arrows = pairs.arrows(x)
        length = (arrows.square().sum(-1) + TINY).sqrt()
        pull = pairs.real * self.shift(m)[..., 0] / (1 + length)
        return x + (pull[..., None] * arrows).sum(2) / pairs.neighbours, h


class MutualLayer(nn.Module):
    """One round in which both points of a pair share one message, and feel it with opposite signs; each then scales
    its own motion. It costs less than half of :class:`EquivariantLayer`, whose arguments it has."""

    def __init__(self, width: int, radial: int, edges: int = 0, listens: bool = True) -> None:
        super().__init__()
        self.ends = nn.Linear(width, width)
        self.pair = nn.Linear(radial + edges, width, bias=False)
        self.message = nn.Linear(width, width)
        self.shift, self.own = reluctant(width), nn.Linear(width, 1)
        self.listens = listens
        if listens:
            self.gate = nn.Linear(width, 1)
            self.update = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, h: Tensor, radial: Tensor, pairs: HalfPairs) -> tuple[Tensor, Tensor]:
        """Positions ``(B, N, D)`` and features ``(B, N, width)``, both updated; ``radial`` are the features of pairs
        ``(B, P, radial + edges)``."""
        m = pairs.both @ self.ends(h) + self.pair(radial)
        m = F.silu(self.message(F.silu(m)))
        if self.listens:
            heard = pairs.both.T @ (pairs.real[..., None] * torch.sigmoid(self.gate(m)) * m) / pairs.neighbours
            h = h + self.update(torch.cat([h, heard], -1))
        arrows = pairs.arrows(x)
        length = (arrows.square().sum(-1) + TINY).sqrt()
        pull = pairs.real * self.shift(m)[..., 0] / (1 + length)
        push = pairs.between.T @ (pull[..., None] * arrows) / pairs.neighbours
        return x + (1 + self.own(h)) * push, h


class AllPairs:
    """Every point with every other, both ways round: ``(B, N, N)``."""

    def __init__(self, mask: Tensor, dtype: torch.dtype) -> None:
        n = mask.shape[1]
        apart = ~torch.eye(n, dtype=torch.bool, device=mask.device)
        self.real = (mask[:, :, None] & mask[:, None] & apart).to(dtype)  # 0 for padding and a point with itself
        self.neighbours = self.real.sum(-1, keepdim=True).clamp_min(1).sqrt()

    def arrows(self, x: Tensor) -> Tensor:
        return x[:, :, None] - x[:, None]

    def pick(self, edges: Tensor) -> Tensor:
        """Features of pairs ``(B, N, N, e)`` in this order."""
        return edges


class HalfPairs:
    """Every pair i < j once: ``(B, P)``."""

    def __init__(self, mask: Tensor, dtype: torch.dtype) -> None:
        n = mask.shape[1]
        self.i, self.j = torch.triu_indices(n, n, 1, device=mask.device)
        one = torch.eye(n, dtype=dtype, device=mask.device)
        self.both, self.between = one[self.i] + one[self.j], one[self.i] - one[self.j]  # (P, N)
        self.real = (mask[:, self.i] & mask[:, self.j]).to(dtype)
        self.neighbours = (mask.sum(1) - 1).clamp_min(1).to(dtype).sqrt()[:, None, None]

    def arrows(self, x: Tensor) -> Tensor:
        return self.between @ x  # a product of matrices is far quicker backwards than gathering points

    def pick(self, edges: Tensor) -> Tensor:
        """Features of pairs ``(B, N, N, e)``, the mean of both ways round, in this order."""
        return 0.5 * (edges[:, self.i, self.j] + edges[:, self.j, self.i])


@renamed_keywords(mutual="symmetric_messages", bumps="num_rbf")
class EGNN(Network):
    """The velocity of a cloud of alike points under rotations, mirror images, shifts and permutations.

    Conditions of the batch are features of the points; domains whose points differ otherwise (atoms of many elements)
    call :meth:`trunk` with features of their own.

    Args:
        width: channels of a point and of a message.
        layers: rounds of messages.
        num_rbf: bumps that describe a distance.
        reach: largest distance with a bump, in units of ``scale``.
        scale: a typical size of the clouds, in their units: the network sees positions divided by it.
        conditions: names of floats that points see, ``(B,)`` or ``(B, N)``.
        edges: features of a pair beside its distance.
        features: whether the last features of :meth:`trunk` are wanted.
        classes: how many values each label that points see has, by name.
        symmetric_messages: whether both points of a pair share one message, for half the work.
        two_times: whether it is a flow map, which reads ``context.t_end``.
    """

    scale: Tensor

    def __init__(
        self, width: int = 64, layers: int = 4, num_rbf: int = 24, reach: float = 5.0, scale: float = 1.0,
        conditions: tuple[str, ...] = (), edges: int = 0, features: bool = False,
        classes: Mapping[str, int] | None = None, symmetric_messages: bool = False, two_times: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.bumps = Bumps(num_rbf, reach)
        self.sites = NodeEmbedding(width, conditions, classes, two_times)
        self.symmetric_messages, self.two_times = symmetric_messages, two_times
        kind = MutualLayer if symmetric_messages else EquivariantLayer
        # distances at the start and now
        self.layers = nn.ModuleList(
            kind(width, 2 * self.bumps.features, edges, listens=features or k < layers - 1) for k in range(layers)
        )

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """Positions ``(B, N, D)`` and times ``(B,)`` to velocities ``(B, N, D)``, without a mean unless sites are
        frozen."""
        return remove_mean(self.trunk(x, self.sites(t, context), context.mask)[0], context)

    def trunk(self, x: Tensor, h: Tensor, mask: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """How far each point moves ``(B, N, D)`` and its last
        features ``(B, N, width)``; from features ``h``, the mask ``(B, N)`` and features of pairs ``(B, N, N, e)``."""
        pairs: AllPairs | HalfPairs = (HalfPairs if self.symmetric_messages else AllPairs)(mask, x.dtype)
        start = y = x / self.scale
        begun = self._radial(pairs, start)
        extra = [] if edges is None else [pairs.pick(edges)]
        for k, layer in enumerate(self.layers):
            now = begun if k == 0 else self._radial(pairs, y)
            y, h = layer(y, h, torch.cat([begun, now, *extra], -1), pairs)
        return (y - start) * self.scale, h

    def _radial(self, pairs: AllPairs | HalfPairs, x: Tensor) -> Tensor:
        return self.bumps(pairs.arrows(x).square().sum(-1))
