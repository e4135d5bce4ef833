"""The equivariant network of :mod:`fm_science.networks.egnn` on a graph of near points, with memory
for its edges alone.

Messages travel between points nearer than a radius and fade smoothly towards it, so no point ever jumps. What is
farther away reaches a point through the whole: the mean of all features of its cloud, and its own place as seen from
the centre. Layers are those of PyTorch Geometric, the graph is built here for the whole batch at once.

After Satorras, Hoogeboom & Welling (2021); the whole as a virtual node after Gilmer et al. (2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing as Layer

from fm_science.declarations import renamed_keywords
from fm_science.networks.base import Network
from fm_science.networks.egnn import TINY, Bumps, reluctant
from fm_science.networks.graphs import envelope, radius_graph
from fm_science.networks.sites import NodeEmbedding, remove_mean
from fm_science.state import Context


class EquivariantMessages(Layer):
    """One round of messages along the edges of a graph.

    Args:
        width: channels of a point and of a message.
        radial: features of an edge.
        listens: whether points update their features too.
    """

    def __init__(self, width: int, radial: int, listens: bool = True) -> None:
        super().__init__(aggr="add", node_dim=0)
        self.width, self.listens = width, listens
        self.sender, self.receiver = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.edge, self.between = nn.Linear(radial, width, bias=False), nn.Linear(width, width)
        self.shift = reluctant(width)
        self.breath = reluctant(width)
        if listens:
            self.gate = nn.Linear(width, 1)
            self.whole = nn.Linear(width, width, bias=False)
            self.changed = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, h: Tensor, graph: Graph, radial: Tensor, fade: Tensor) -> tuple[Tensor, Tensor]:
        """Positions ``(B N, D)`` and features ``(B N, width)``, both updated; ``radial`` ``(E, radial)`` and ``fade``
        ``(E,)`` belong to the edges."""
        messages = self.propagate(
            graph.edges.flip(0), x=x, sent=self.sender(h), kept=self.receiver(h), radial=radial, fade=fade[:, None]
        )
        degree = (1 + messages[:, -1:]).sqrt()
        push = messages[:, : x.shape[1]] / degree
        moved = x + push + self.breath(h) * (x - graph.spread(graph.mean(x)))
        if self.listens:
            heard = messages[:, x.shape[1] : -1] / degree
            h = h + self.changed(torch.cat([h, heard, graph.spread(self.whole(graph.mean(h)))], -1))
        return moved, h

    def message(self, x_i: Tensor, x_j: Tensor, sent_j: Tensor, kept_i: Tensor, radial: Tensor, fade: Tensor) -> Tensor:
        """What travels along each edge: an arrow, features and one, all faded."""
        m = F.silu(self.between(F.silu(sent_j + kept_i + self.edge(radial))))
        arrow = x_i - x_j
        push = self.shift(m) * arrow / (1 + (arrow.square().sum(-1, keepdim=True) + TINY).sqrt())
        heard = torch.sigmoid(self.gate(m)) * m if self.listens else m[:, :0]
        return fade * torch.cat([push, heard, torch.ones_like(fade)], -1)


class Graph:
    """The edges of a batch ``(2, E)``, receivers before senders, and which cloud each of the B N sites belongs to."""

    def __init__(self, edges: Tensor, mask: Tensor, dtype: torch.dtype) -> None:
        self.edges, self.shape = edges, mask.shape
        self.real = mask[..., None].to(dtype)
        self.count = self.real.sum(1).clamp_min(1)

    def mean(self, value: Tensor) -> Tensor:
        """Values of sites ``(B N, c)`` to their means over real sites ``(B, c)``."""
        return (value.unflatten(0, self.shape) * self.real).sum(1) / self.count

    def spread(self, value: Tensor) -> Tensor:
        """A value of each cloud ``(B, c)`` on each of its sites ``(B N, c)``."""
        return value.repeat_interleave(self.shape[1], 0)


@renamed_keywords(bumps="num_rbf")
class MessagePassing(Network):
    """The velocity of a cloud under rotations, mirror images, shifts and permutations, in the plane or in space, with
    memory linear in the number of near pairs.

    Args:
        width: channels of a point and of a message.
        layers: rounds of messages.
        num_rbf: bumps that describe a distance.
        reach: largest distance with a bump, in units of ``scale``.
        radius: points farther apart exchange nothing, in units of ``scale``; ``None``: all pairs do.
        scale: a typical size of the clouds, in their units.
        conditions: names of floats that points see, ``(B,)`` or ``(B, N)``.
        classes: how many values each label that points see has, by name.
        edges: features of a pair beside its distance.
        features: whether the last features of :meth:`trunk` are wanted.
        two_times: whether it is a flow map, which reads ``context.t_end``.
    """

    scale: Tensor

    def __init__(
        self, width: int = 64, layers: int = 4, num_rbf: int = 24, reach: float = 5.0, radius: float | None = None,
        scale: float = 1.0, conditions: tuple[str, ...] = (), classes: Mapping[str, int] | None = None, edges: int = 0,
        features: bool = False, two_times: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.radius, self.two_times = radius, two_times
        self.bumps = Bumps(num_rbf, reach if radius is None else min(reach, radius))
        self.sites = NodeEmbedding(width, conditions, classes, two_times)
        self.layers = nn.ModuleList(
            EquivariantMessages(width, 2 * self.bumps.features + edges, features or k < layers - 1)
            for k in range(layers)
        )

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """Positions ``(B, N, D)`` and times ``(B,)`` to velocities ``(B, N, D)``, without a mean unless sites are
        frozen."""
        return remove_mean(self.trunk(x, self.sites(t, context), context.mask)[0], context)

    def trunk(self, x: Tensor, h: Tensor, mask: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """How far each point moves ``(B, N, D)`` and its last
        features ``(B, N, width)``; from features ``h``, the mask ``(B, N)`` and features of pairs ``(B, N, N, e)``."""
        start = x / self.scale
        near = radius_graph(start, mask, self.radius)
        graph = Graph(near, mask, x.dtype)
        y = start = start.flatten(0, 1)
        h = h.flatten(0, 1)
        square = self._square(start, near)
        begun, fade = self.bumps(square), envelope(square, self.radius)
        extra: list[Any] = [] if edges is None else [edges.flatten(0, 1)[near[0], near[1] % mask.shape[1]]]
        for k, layer in enumerate(self.layers):
            now = begun if k == 0 else self.bumps(self._square(y, near))
            y, h = layer(y, h, graph, torch.cat([begun, now, *extra], -1), fade)
        return ((y - start) * self.scale).unflatten(0, mask.shape), h.unflatten(0, mask.shape)

    def _square(self, x: Tensor, near: Tensor) -> Tensor:
        return (x[near[0]] - x[near[1]]).square().sum(-1)
