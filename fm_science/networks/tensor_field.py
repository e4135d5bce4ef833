"""An equivariant network whose messages have directions: tensor products of features with spherical harmonics.

A point carries numbers, vectors and, up to l = 2, traceless symmetric matrices. A message multiplies what the sender
carries with the spherical harmonics of the way to the receiver, keeps the parts that turn properly (Clebsch-Gordan
products), and weighs each by a learned function of the distance and of both ends. So three points already tell their
angle, where messages of distances alone need many rounds.

With parity (the default) the network commutes with mirror images. Without it (``chiral=True``) cross products are
allowed: rotations are still respected, but a left hand is told from a right one.

Thomas et al. 2018 (tensor field networks); Batzner et al. 2022 (products channel by channel); Geiger & Smidt 2022
(e3nn, which supplies the products). In space only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise

import e3nn
import torch
from e3nn import o3
from torch import Tensor, nn

from fm_science.declarations import renamed_keywords
from fm_science.errors import OptionError
from fm_science.networks.base import Network
from fm_science.networks.egnn import TINY, Bumps
from fm_science.networks.graphs import envelope, radius_graph
from fm_science.networks.sites import NodeEmbedding, remove_mean
from fm_science.state import Context


@contextmanager
def _plain() -> Iterator[None]:
    """Products are built without TorchScript, which neither forward-mode derivatives nor vmap bear."""
    before = e3nn.get_optimization_defaults()
    e3nn.set_optimization_defaults(jit_script_fx=False)
    try:
        yield
    finally:
        e3nn.set_optimization_defaults(**{k: before[k] for k in ("jit_script_fx", "jit_mode") if k in before})


def carried(width: int, highest: int, chiral: bool) -> o3.Irreps:
    """What a point carries: ``width`` numbers, half as many vectors, a quarter as many matrices."""
    parity = [1] * 3 if chiral else [1, -1, 1]
    return o3.Irreps([(max(1, width // 2**l), (l, parity[l])) for l in range(highest + 1)])


class TensorLayer(nn.Module):
    """One round of messages.

    Args:
        given, carried: what points carry before and after, numbers first.
        harmonics: those of the edges.
        radial: features of an edge that weigh the products, beside the numbers that both ends carry.
    """

    index: Tensor

    def __init__(self, given: o3.Irreps, carried: o3.Irreps, harmonics: o3.Irreps, radial: int) -> None:
        super().__init__()
        self.numbers, self.given_numbers = carried.count("0e"), given.count("0e")
        turning = [(count, ir) for count, ir in carried if ir.l > 0]
        paths: list[tuple[int, int, int, str, bool]] = []
        made: list[tuple[int, o3.Irrep]] = []
        for i, (count, left) in enumerate(given):
            for j, (_, right) in enumerate(harmonics):
                for product in left * right:
                    if str(product) == "0e" or product in [ir for _, ir in carried]:  # numbers gate the rest
                        paths.append((i, j, len(made), "uvu", True))
                        made.append((count, product))
        with _plain():
            self.product = o3.TensorProduct(
                given, harmonics, o3.Irreps(made), paths, internal_weights=False, shared_weights=False
            )
            out = o3.Irreps([(self.numbers + sum(count for count, _ in turning), (0, 1)), *turning])
            self.mix = o3.Linear(o3.Irreps(made).simplify(), out, biases=True)
            self.keep = o3.Linear(given, out)
        width = self.given_numbers
        self.weigh = nn.Sequential(
            nn.Linear(radial + 2 * width, width), nn.SiLU(), nn.Linear(width, self.product.weight_numel)
        )
        sizes = [ir.dim for count, ir in turning for _ in range(count)]
        channels = [k for k, size in enumerate(sizes) for _ in range(size)]
        self.register_buffer("index", torch.tensor(channels, dtype=torch.long), persistent=False)

    def forward(self, h: Tensor, near: Tensor, harmonics: Tensor, radial: Tensor, fade: Tensor) -> Tensor:
        """What points carry ``(B N, given)`` to ``(B N, carried)``; ``near`` ``(2, E)``, ``harmonics`` ``(E, m)``,
        ``radial`` ``(E, radial)`` and ``fade`` ``(E,)`` belong to the edges."""
        receiver, sender = near
        numbers = h[:, : self.given_numbers]
        weights = self.weigh(torch.cat([radial, numbers[receiver], numbers[sender]], -1))
        message = fade[:, None] * self.product(h[sender], harmonics, weights)
        heard = torch.zeros(len(h), message.shape[1], dtype=h.dtype, device=h.device).index_add(0, receiver, message)
        degree = torch.ones_like(h[:, 0]).index_add(0, receiver, fade).sqrt()
        y = self.mix(heard / degree[:, None]) + self.keep(h)
        gates = y.shape[1] - self.numbers - len(self.index)
        plain, gate, turning = y.split([self.numbers, gates, len(self.index)], -1)
        return torch.cat([nn.functional.silu(plain), torch.sigmoid(gate)[:, self.index] * turning], -1)


@renamed_keywords(bumps="num_rbf")
class TensorField(Network):
    """The velocity of a cloud in space under rotations, shifts and permutations, and with ``chiral=False`` under
    mirror images.

    Args:
        width: numbers that a point carries; it carries half as many vectors and a quarter as many matrices.
        layers: rounds of messages.
        highest: largest l, 1 or 2.
        num_rbf: bumps that describe a distance.
        reach: largest distance with a bump, in units of ``scale``.
        radius: points farther apart exchange nothing, in units of ``scale``; ``None``: all pairs do.
        scale: a typical size of the clouds, in their units.
        conditions: names of floats that points see, ``(B,)`` or ``(B, N)``.
        classes: how many values each label that points see has, by name.
        edges: features of a pair beside its distance.
        features: whether the last numbers of :meth:`trunk` are wanted.
        chiral: whether a cloud is told from its mirror image.
        two_times: whether it is a flow map, which reads ``context.t_end``.
    """

    scale: Tensor

    def __init__(
        self, width: int = 32, layers: int = 3, highest: int = 2, num_rbf: int = 16, reach: float = 5.0,
        radius: float | None = None, scale: float = 1.0, conditions: tuple[str, ...] = (),
        classes: Mapping[str, int] | None = None, edges: int = 0, features: bool = False, chiral: bool = False,
        two_times: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if highest not in (1, 2):
            raise OptionError(f"TensorField(highest={highest}): messages go up to l = 1 or 2.")
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.radius, self.width, self.two_times = radius, width, two_times
        self.bumps = Bumps(num_rbf, reach if radius is None else min(reach, radius))
        self.sites = NodeEmbedding(width, conditions, classes, two_times)
        whole = carried(width, highest, chiral)
        self.harmonics = o3.Irreps([(1, ir) for _, ir in whole])
        start = o3.Irreps([(width, (0, 1))])
        end = whole[:2] if features else whole[1:2]  # only what is asked for
        steps = [start, *[whole] * (layers - 1), end]
        self.layers = nn.ModuleList(
            TensorLayer(a, b, self.harmonics, self.bumps.features + edges) for a, b in pairwise(steps)
        )
        with _plain():
            self.around = o3.SphericalHarmonics(self.harmonics, normalize=False, normalization="component")
            self.out = o3.Linear(end, o3.Irreps([(1, whole[1].ir)]))
        with torch.no_grad():
            self.out.weight.mul_(0.1)

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """Positions ``(B, N, 3)`` and times ``(B,)`` to velocities ``(B, N, 3)``, without a mean unless sites are
        frozen. Raises ValueError for clouds that do not lie in space."""
        return remove_mean(self.trunk(x, self.sites(t, context), context.mask)[0], context)

    def trunk(self, x: Tensor, h: Tensor, mask: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """How far each point moves ``(B, N, 3)`` and its last
        numbers ``(B, N, width)`` (none unless ``features``); from numbers ``h``, the mask ``(B, N)`` and features of
        pairs ``(B, N, N, e)``."""
        if x.shape[-1] != 3:
            raise ValueError(
                f"TensorField was given points {tuple(x.shape)}: spherical harmonics live in three dimensions. "
                "Use EGNN or MessagePassing elsewhere."
            )
        y = x / self.scale
        near = radius_graph(y, mask, self.radius)
        y, h = y.flatten(0, 1), h.flatten(0, 1)
        arrows = y[near[0]] - y[near[1]]
        square = arrows.square().sum(-1)
        harmonics = self.around(arrows / (square + TINY).sqrt()[:, None])
        extra = [] if edges is None else [edges.flatten(0, 1)[near[0], near[1] % mask.shape[1]]]
        radial, fade = torch.cat([self.bumps(square), *extra], -1), envelope(square, self.radius)
        for layer in self.layers:
            h = layer(h, near, harmonics, radial, fade)
        u = self.out(h) * self.scale
        return u.unflatten(0, mask.shape), h[:, : self.layers[-1].numbers].unflatten(0, mask.shape)
