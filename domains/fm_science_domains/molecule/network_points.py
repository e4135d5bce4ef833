"""Molecules on the engine's networks for point clouds: message passing on near atoms, and tensor products.

These networks take points, features of points and features of pairs. Classes and time become features of points, bonds
those of pairs; they move the points and return features, from which classes are predicted. A pair is predicted from its
present bond, its ends and its length, so bonds between all atoms are predicted even if messages are only passed between
near ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fm_science.state import Context

from .network import Kinds, Network, Reader, Speaker, small


def message_passing(o: Network, kinds: Kinds) -> Any:
    """Equivariant messages between near atoms (PyTorch Geometric); blind to mirror images."""
    from fm_science.networks.message_passing import MessagePassing

    near = None if o.radius is None else o.radius / kinds.scale
    return MessagePassing(o.width, o.layers, o.radial, radius=near, scale=kinds.scale, edges=o.edge, features=True)


def tensor_field(o: Network, kinds: Kinds) -> Any:
    """Messages with directions, up to l = 2 (e3nn)."""
    from fm_science.networks.tensor_field import TensorField

    near = None if o.radius is None else o.radius / kinds.scale
    return TensorField(
        o.width, o.layers, num_rbf=o.radial, radius=near, scale=kinds.scale, edges=o.edge, features=True,
        chiral=o.chiral,
    )


class OnPoints(nn.Module):
    """Predicts the endpoint of a molecule's flow; see :class:`~.network_dense.Dense` for shapes.

    Args:
        o: options.
        kinds: what a network needs to know.
        body: ``(options, kinds) -> network`` with ``moved(x, h, mask, edges)``.
    """

    def __init__(self, o: Network, kinds: Kinds, body: Any) -> None:
        super().__init__()
        self.self_conditioned = kinds.remembers
        self.reader, self.speaker = Reader(o, kinds), Speaker(o, kinds)
        self.scale = kinds.scale
        self.body = body(o, kinds)
        del self.body.sites  # its features of points: ours come from the encoder
        self.ends = nn.Linear(o.width, o.edge)
        self.revise = nn.Sequential(nn.SiLU(), small(nn.Linear(o.edge, o.edge), 0.3))

    def forward(self, x: dict[str, Tensor], t: Tensor, context: Context) -> dict[str, Tensor]:
        s = self.reader(x, t, context)
        e = s.e * s.pairs[..., None]
        u, h = self.body.trunk(s.x, s.h * s.real, context.mask, e)
        ends = self.ends(h)
        e = e + self.revise(e + ends[:, :, None] + ends[:, None])
        return self.speaker(s.h + h, e, s.x + s.reach / self.scale * torch.where(s.real > 0, u, 0.0), s.real)
