"""The common part of the networks of this domain: options, and features of a noisy molecule.

A network gets atoms, bonds and charges as classes (including the mask), positions in angstrom, the time, and the
endpoint that it predicted one step before. It returns positions of the finished molecule and logits of its classes.
Positions are predicted as displacements: the network's displacement is scaled by the size of the noise at time t, so
that near the end an error of the network is a small error of the molecule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.domain import option
from fm_science.errors import OptionError
from fm_science.networks import TimeEmbedding, accept_older_weights
from fm_science.state import Context

from .conditioning import Properties

TINY = 1e-8  # added to squared distances, so that the distance of an atom to itself has a gradient
CLOSE = 0.1  # scale of a displacement at t = 1, as a share of the noise


@dataclass(frozen=True)
class Network:
    """Kind and size of the network."""

    kind: str = option(
        "dense", "equivariant on all pairs; not equivariant; messages between near atoms; tensor products",
        choices=("dense", "transformer", "pyg", "e3nn"),
    )  # fmt: skip
    width: int = option(128, "channels of an atom", low=8, high=16_384)
    edge: int = option(48, "channels of a pair of atoms", low=4, high=16_384)
    vectors: int = option(16, "vectors of an atom (dense)", low=1)
    layers: int = option(5, "rounds of messages", low=1, high=1_000)
    heads: int = option(4, "attention heads", low=1)
    radial: int = option(20, "radial basis functions of a distance", low=4)
    chiral: bool = option(True, "cross products, which distinguish mirror images (dense, e3nn)")
    radius: float | None = option(
        None, "atoms farther apart exchange no message (pyg, e3nn); none: all do", "angstrom", low=2
    )  # fmt: skip


@dataclass(frozen=True)
class Kinds:
    """What a network needs to know: numbers of classes (including a mask class), the standard deviation of the noise,
    known properties.

    Attributes:
        atoms, bonds, charges: classes; no charges: they are not part of the state.
        scale: standard deviation of the noise on each axis, angstrom.
        remembers: whether the network gets its previous prediction.
        conditions: mean and standard deviation of the properties that condition it.
    """

    atoms: int
    bonds: int
    charges: int = 0
    scale: float = 1.4
    remembers: bool = True
    conditions: tuple[tuple[str, tuple[float, float]], ...] = ()

    @staticmethod
    def of(
        counts: Mapping[str, int], scale: float, remembers: bool, conditions: Mapping[str, tuple[float, float]]
    ) -> Kinds:  # fmt: skip
        """From the classes of each part; without charges if there is no such part."""
        charges = counts.get("charges", 0)
        return Kinds(counts["atoms"], counts["bonds"], charges, scale, remembers, tuple(conditions.items()))


def small(layer: nn.Linear, gain: float = 0.1) -> nn.Linear:
    """Shrink a layer that ends a residual branch."""
    with torch.no_grad():
        layer.weight.mul_(gain)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


class Radial(nn.Module):
    """Distances in angstrom as smooth radial basis functions (1 - z²)³, evenly spaced in log(1 + d): narrow at bond
    lengths, wide at large distances. Each extends two spacings to either side."""

    centre: Tensor

    def __init__(self, count: int, reach: float = 12.0) -> None:
        super().__init__()
        self.register_buffer("centre", torch.linspace(0.4, torch.tensor(1 + reach).log().item(), count))
        self.width = 2 * float(self.centre[1] - self.centre[0])

    def forward(self, length: Tensor) -> Tensor:
        """``(...)`` to ``(..., count)``."""
        z = (torch.log1p(length) / self.width)[..., None] - self.centre / self.width
        return torch.relu(torch.addcmul(z.new_ones(()), z, z, value=-1)).pow(3)


def arrows(x: Tensor) -> tuple[Tensor, Tensor]:
    """From every atom to every other one: vectors ``(B, N, N, 3)`` that end at the first, and their lengths."""
    way = x[:, :, None] - x[:, None]
    return way, (way.square().sum(-1) + TINY).sqrt()


@dataclass(frozen=True)
class Scene:
    """The input of a network: features of atoms and pairs, positions, and masks.

    Attributes:
        h: (B, N, width); e: (B, N, N, edge), symmetric; x: (B, N, 3) angstrom.
        shift: (B, N, 3), from here to the atoms of the previous prediction; zero if there is none.
        way: (B, N, N, 3) and length: (B, N, N), differences of the atoms of x and their lengths.
        real: (B, N, 1) and pairs: (B, N, N), 1 or 0.
        reach: (B, 1, 1), the scale of a displacement, angstrom.
    """

    h: Tensor
    e: Tensor
    x: Tensor
    shift: Tensor
    way: Tensor
    length: Tensor
    real: Tensor
    pairs: Tensor
    reach: Tensor


class Reader(nn.Module):
    """From a state to features."""

    def __init__(self, o: Network, kinds: Kinds) -> None:
        super().__init__()
        self.kinds, self.radial = kinds, Radial(o.radial)
        self.time = TimeEmbedding(32, highest=100.0)
        nodes = kinds.atoms + kinds.charges
        self.atom = nn.Linear(nodes + 32 + 2, o.width)
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(o.width, o.width))
        self.bond = nn.Linear(kinds.bonds + o.radial, o.edge)
        self.ends = nn.Linear(o.width, o.edge, bias=False)
        if kinds.remembers:
            self.atom_before = nn.Linear(nodes, o.width)
            self.bond_before = nn.Linear(kinds.bonds + o.radial, o.edge)
        self.properties = Properties(dict(kinds.conditions), o.width) if kinds.conditions else None
        accept_older_weights(self, properties="asked")

    def forward(self, state: dict[str, Tensor], t: Tensor, context: Context) -> Scene:
        x, n = state["positions"], context.mask.shape[1]
        real = context.mask[..., None].to(x)
        eye = torch.eye(n, dtype=x.dtype, device=x.device)
        pairs = real * real.mT * (1 - eye)
        way, length = arrows(x)
        h, e, shift = self._atoms(state, t, context, real), self._bonds(state, length), torch.zeros_like(x)
        before = context.previous if self.kinds.remembers else None
        if before is not None:
            then = before["positions"].to(x)
            h = h + self.atom_before(self._classes(before, x))
            e = e + self.bond_before(torch.cat([before["bonds"].to(x), self.radial(arrows(then)[1])], -1))
            shift = (then - x) * real
        h = self.mix(h)
        ends = self.ends(h)
        e = e + ends[:, :, None] + ends[:, None]
        reach = self.kinds.scale * ((1 - t).square() + CLOSE**2).sqrt()[:, None, None]
        return Scene(h, e, x, shift, way, length, real, pairs, reach)

    def _atoms(self, state: dict[str, Tensor], t: Tensor, context: Context, real: Tensor) -> Tensor:
        x = state["positions"]
        count = real.sum(1, keepdim=True).clamp_min(1).log().expand_as(real)
        fixed = torch.zeros_like(real) if context.free is None else (~context.free)[..., None].to(x)
        time = self.time(t)[:, None].expand(*x.shape[:2], -1)
        h = self.atom(torch.cat([self._classes(state, x), time, count, fixed], -1))
        return h if self.properties is None else h + self.properties(context, x)[:, None]

    def _classes(self, state: Any, x: Tensor) -> Tensor:
        parts = [state["atoms"], *([state["charges"]] if self.kinds.charges else [])]
        return torch.cat([p.to(x) for p in parts], -1)

    def _bonds(self, state: dict[str, Tensor], length: Tensor) -> Tensor:
        return self.bond(torch.cat([state["bonds"], self.radial(length)], -1))


class Speaker(nn.Module):
    """From the last features to raw output: positions of the finished molecule and logits of its classes."""

    def __init__(self, o: Network, kinds: Kinds) -> None:
        super().__init__()
        self.kinds, self.radial = kinds, Radial(o.radial)
        self.node = nn.Sequential(nn.LayerNorm(o.width), nn.Linear(o.width, o.width), nn.SiLU())
        self.atoms = nn.Linear(o.width, kinds.atoms)
        self.charges = nn.Linear(o.width, kinds.charges) if kinds.charges else None
        self.pair = nn.LayerNorm(o.edge)
        self.far = nn.Linear(o.radial, o.edge, bias=False)
        self.inner = nn.Linear(o.edge, o.edge)
        self.bonds = nn.Linear(o.edge, kinds.bonds)

    def forward(self, h: Tensor, e: Tensor, x: Tensor, real: Tensor) -> dict[str, Tensor]:
        h = self.node(h)
        e = self.inner(self.pair(e + e.transpose(1, 2))) + self.far(self.radial(arrows(x)[1]))
        raw = {"positions": x * real, "atoms": self.atoms(h), "bonds": self.bonds(nn.functional.silu(e))}
        return raw if self.charges is None else {**raw, "charges": self.charges(h)}


def network(o: Network, kinds: Kinds) -> nn.Module:
    """The network of this kind. Raises OptionError if its sizes are not divisible."""
    for name in ("width", "vectors"):
        if getattr(o, name) % o.heads:
            raise OptionError(f"network.{name}={getattr(o, name)} must be a multiple of network.heads={o.heads}")
    from . import network_points as points
    from .network_dense import Dense
    from .network_transformer import Transformer

    makers: dict[str, Callable[..., nn.Module]] = {
        "dense": Dense,
        "transformer": Transformer,
        "pyg": partial(points.OnPoints, body=points.message_passing),
        "e3nn": partial(points.OnPoints, body=points.tensor_field),
    }
    return makers[o.kind](o, kinds)
