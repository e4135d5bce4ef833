"""An equivariant graph network on point clouds: points move along the lines that join them.

Every pair of points exchanges a message made of what both know and how far apart they are. A point then moves by a sum
of arrows towards and away from the others, each as long as its message says. Distances do not change when a cloud is
moved, turned or mirrored, and arrows turn along with it; sums do not care about order. So the network commutes with
all of these, whatever its weights (Satorras, Hoogeboom & Welling 2021, equations 3 to 6).

Distances reach the messages as smooth bumps, since energies change within a small fraction of the
size of a cloud. All pairs are dense: memory grows with the square of the number of points.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_science.networks.time import TimeEmbedding
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
        self.shift = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
        self.listens = listens
        if listens:
            self.gate = nn.Linear(width, 1)
            self.update = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        with torch.no_grad():
            self.shift[-1].weight.mul_(0.1)  # type: ignore[union-attr, operator]
            self.shift[-1].bias.zero_()  # type: ignore[union-attr, operator]

    def forward(self, x: Tensor, h: Tensor, radial: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Positions ``(B, N, D)`` and features ``(B, N, width)``, both updated.

        Args:
            x, h: positions and features.
            radial: features of pairs ``(B, N, N, radial + edges)``, receiver first.
            pairs: ``(B, N, N)``, 1 for pairs of two real points, 0 for a point with itself and for padding.
        """
        m = self.receiver(h)[:, :, None] + self.sender(h)[:, None] + self.pair(radial)
        m = F.silu(self.message(F.silu(m)))
        neighbours = pairs.sum(-1, keepdim=True).clamp_min(1).sqrt()
        if self.listens:
            heard = (pairs[..., None] * torch.sigmoid(self.gate(m)) * m).sum(2) / neighbours
            h = h + self.update(torch.cat([h, heard], -1))
        arrows = x[:, :, None] - x[:, None]
        length = (arrows.square().sum(-1) + TINY).sqrt()
        pull = pairs * self.shift(m)[..., 0] / (1 + length)
        return x + (pull[..., None] * arrows).sum(2) / neighbours, h


class EGNN(nn.Module):
    """The velocity of a cloud of alike points under rotations, mirror images, shifts and permutations.

    Conditions of the batch named in ``conditions``, floats ``(B,)`` or ``(B, N)``, are features of the points; domains
    whose points differ otherwise (atoms of many elements) call :meth:`refine` with features of their own.

    Args:
        width: channels of a point and of a message.
        layers: rounds of messages.
        bumps: bumps that describe a distance.
        reach: largest distance with a bump, in units of ``scale``.
        scale: a typical size of the clouds, in their units: the network sees positions divided by it.
        conditions: names of conditions that points see.
        edges: features of a pair beside its distance.
        features: whether the last features of :meth:`refine` are wanted.
        two_times: whether it is a flow map, which reads ``context.until``.
    """

    scale: Tensor

    def __init__(
        self, width: int = 64, layers: int = 4, bumps: int = 24, reach: float = 5.0, scale: float = 1.0,
        conditions: tuple[str, ...] = (), edges: int = 0, features: bool = False, two_times: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conditions, self.two_times = conditions, two_times
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.bumps = Bumps(bumps, reach)
        self.time = TimeEmbedding(32, highest=100.0, two_times=two_times)
        known = self.time.features + len(conditions)
        self.first = nn.Sequential(nn.Linear(known, width), nn.SiLU(), nn.Linear(width, width))
        # distances at the start and now
        self.layers = nn.ModuleList(
            EquivariantLayer(width, 2 * self.bumps.features, edges, listens=features or k < layers - 1)
            for k in range(layers)
        )

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """Positions ``(B, N, D)`` and times ``(B,)`` to velocities ``(B, N, D)`` without a mean."""
        seen = [self.time(t, context.until)[:, None].expand(*x.shape[:2], -1)]
        for name in self.conditions:
            value = context.cond[name].to(x)
            seen.append((value if value.ndim > 1 else value[:, None].expand(x.shape[:2]))[..., None])
        moved, _ = self.refine(x, self.first(torch.cat(seen, -1)), context.mask)
        return moved

    def refine(self, x: Tensor, h: Tensor, mask: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """How far each point moves ``(B, N, D)``, without a mean over real points and zero at padding, and its last
        features ``(B, N, width)``; from features ``h``, the mask ``(B, N)`` and features of pairs ``(B, N, N, e)``."""
        n = mask.shape[1]
        both = mask[:, :, None] & mask[:, None] & ~torch.eye(n, dtype=torch.bool, device=mask.device)
        pairs = both.to(x.dtype)
        start = y = x / self.scale
        begun = self._radial(start)
        extra = [] if edges is None else [edges]
        for k, layer in enumerate(self.layers):
            now = begun if k == 0 else self._radial(y)
            y, h = layer(y, h, torch.cat([begun, now, *extra], -1), pairs)
        real = mask[..., None].to(x.dtype)
        u = (y - start) * real * self.scale
        return u - real * u.sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp_min(1), h

    def _radial(self, x: Tensor) -> Tensor:
        return self.bumps((x[:, :, None] - x[:, None]).square().sum(-1))
