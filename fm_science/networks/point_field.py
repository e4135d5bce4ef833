"""A ready network for one or a few sites on any space.

Each part of the state is shown by its embedding (:mod:`fm_science.networks.embedding`), beside the time and the
conditions; a residual perceptron follows; and each part has a head that says what the path asks for: a tangent, a
point, or logits of classes. Where there are several sites, they see each other through the mean of their features, so
that order and padding do not matter (Zaheer et al. 2017). For large clouds use SetTransformer, for symmetric ones EGNN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from torch import Tensor, nn
from torch.nn.functional import silu

from fm_science.errors import OptionError
from fm_science.networks.base import Network, accept_older_weights
from fm_science.networks.embedding import WAVES, Embedding, embedding
from fm_science.networks.sites import NodeEmbedding
from fm_science.predictions import Posterior, Prediction, Velocity
from fm_science.spaces import Leaf, Space
from fm_science.state import Context, State, Tree, map_leaves, zip_leaves

if TYPE_CHECKING:
    from fm_science.paths import Path

T = TypeVar("T")
Scales = Sequence[float] | Mapping[str, Sequence[float]]


class Part(nn.Module):
    """One leaf of the state: how its points enter, and how its raw output leaves.

    Args:
        space: the leaf.
        width: features of a site.
        predicts: what the output means.
        scales, waves: of the embedding.
    """

    def __init__(
        self, space: Leaf, width: int, predicts: Prediction, scales: Sequence[float] | None, waves: int
    ) -> None:  # fmt: skip
        super().__init__()
        predicts.check(space)
        self.space, self.predicts = space, predicts
        self.embed: Embedding = embedding(space, scales, waves)
        self.enter = nn.Linear(self.embed.features, width)
        self.leave = nn.Linear(width, self.embed.coefficients if space.smooth else space.event[-1])
        nn.init.zeros_(self.leave.weight)  # the first velocity is zero, the first endpoint the point itself
        nn.init.zeros_(self.leave.bias)
        self.pair = nn.Linear(width, width) if space.on == "edges" else None

    def spread(self, h: Tensor, context: Context) -> Tensor:
        """Features of its own sites ``(B, *sites, width)`` as features of nodes, ``(B, N, width)`` or ``(B, 1,
        width)``: of edges the mean over those of a node."""
        if self.space.on == "edges":
            real = context.sites("edges")[..., None].to(h)
            return (h * real).sum(2) / real.sum(2).clamp_min(1)
        return h[:, None] if self.space.on == "graph" else h

    def output(self, space: Space, x: Tensor, h: Tensor, nodes: Tensor, context: Context) -> Tensor:
        """The raw output, of the shape that the prediction asks for; ``space`` is bound."""
        real = context.sites(self.space.on)
        if self.space.on == "graph":
            nodes = masked_mean(nodes, context)[:, 0]
        elif self.pair is not None:
            ends = self.pair(nodes)
            nodes = silu(h + ends[:, :, None] + ends[:, None, :])
        raw = self.leave(nodes) * real[..., None]
        if not self.space.smooth:
            return raw
        tangent = self.embed.tangent(x, raw)
        if not self.predicts.is_endpoint:
            return tangent
        return space.exp(x, space.tangent(x, tangent))


class PointField(Network):
    """The velocity, endpoint, noise or logits of one or a few sites on any leaf space or product.

    Args:
        space: not bound.
        width: features of a site.
        depth: hidden layers.
        scales: of the waves that points are shown through (see :class:`~fm_science.networks.Embedding`), or such by
            part; ``None``, and for parts that are not named: the default of each space.
        waves: waves of each scale.
        predicts: what the path asks for, or such by part; ``None``, and for parts that are not named: Posterior() on
            classes and Velocity() elsewhere. :meth:`for_path` reads it from a path.
        conditions: names of floats ``(B,)`` or ``(B, N)`` of the context that sites are told; NaN: not known.
        classes: how many values each label of the context has, by name; -1: not known.
        pooled: whether the sites of a sample see each other; needed where there are more than one.
        two_times: whether it is a flow map, which reads ``context.t_end``.

    Parts within parts have names such as "bonds/length".

    Raises:
        TypeError: for spaces of functions, and predictions that mean nothing on their part.
        OptionError: for scales or predictions of a part that the space does not have.
    """

    def __init__(
        self, space: Space, width: int = 128, depth: int = 3, *, scales: Scales | None = None, waves: int = WAVES,
        predicts: Prediction | Mapping[str, Prediction] | None = None, conditions: Sequence[str] = (),
        classes: Mapping[str, int] | None = None, pooled: bool = False, two_times: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.space, self.two_times, self.pooled = space, two_times, pooled
        named = named_leaves(space)
        for what, given in (("scales", scales), ("predicts", predicts)):
            _check_names(what, given, named)
        self.parts = nn.ModuleList(
            Part(leaf, width, _of(predicts, k) or default_prediction(leaf), _of(scales, k), waves)
            for k, leaf in named.items()
        )  # fmt: skip
        self.embedding = NodeEmbedding(width, conditions, classes, two_times)
        accept_older_weights(self, embedding="told")
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.means = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range((depth - 1) * pooled))

    @classmethod
    def for_path(cls, path: Path, width: int = 128, depth: int = 3, **options: Any) -> PointField:
        """The network that an unbound path asks for: on its space, with its predictions; ``options`` as of the class.

        Raises TypeError for paths that ask for more than one prediction a part, as interpolants do.
        """
        predicts = {name: leaf.predicts for name, leaf in named_leaves(path).items()}
        for name, prediction in predicts.items():
            if not isinstance(prediction, Prediction):
                raise TypeError(f"the path asks for {prediction!r}{name and f' of {name}'}; a PointField gives one.")
        return cls(path.space, width, depth, predicts=predicts if path.parts else predicts[""], **options)

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        """A state and times ``(B,)`` to the raw output.

        Raises:
            ValueError: for several sites, where the network was not built for them.
        """
        if context.mask.shape[1] > 1 and not self.pooled:
            raise ValueError(f"samples have {context.mask.shape[1]} sites, and this network sees one: say pooled=True.")
        parts = cast(list[Part], list(self.parts))
        found = zip_leaves(self.space.bind(context), x)
        points = [point for _, point in found]
        entered = [part.enter(part.embed(point)) for part, point in zip(parts, points, strict=True)]
        h = self.embedding(t.to(points[0]), context)
        for part, e in zip(parts, entered, strict=True):
            h = h + part.spread(e, context)
        h = self._think(silu(h), context)
        whole = zip(parts, found, entered, strict=True)
        outputs = iter([part.output(space, point, e, h, context) for part, (space, point), e in whole])
        return map_leaves(lambda leaf: next(outputs), self.space)

    def _think(self, h: Tensor, context: Context) -> Tensor:
        """Features ``(B, N, width)`` after the hidden layers."""
        for k, block in enumerate(self.blocks):
            new = block(h)
            if self.pooled:
                new = new + self.means[k](masked_mean(h, context))
            h = h + silu(new)
        return h


def masked_mean(h: Tensor, context: Context) -> Tensor:
    """The mean over the real sites of each sample, ``(B, 1, width)``."""
    real = context.mask[..., None].to(h)
    return (h * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp_min(1)


def default_prediction(leaf: Leaf) -> Prediction:
    """What a network tells of a leaf when nothing is said."""
    return Velocity() if leaf.smooth else Posterior()


def named_leaves(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """The leaves of a space or a path by name; a leaf that stands alone has the name ""."""
    if not tree.parts:
        return {prefix: tree}
    found: dict[str, Any] = {}
    for name, part in tree.parts.items():
        found |= named_leaves(part, f"{prefix}/{name}" if prefix else name)
    return found


def _of(given: T | Mapping[str, T] | None, name: str) -> T | None:
    """What is said of a part: of all of them, or of it by name."""
    return given.get(name) if isinstance(given, Mapping) else given


def _check_names(what: str, given: object, named: Mapping[str, Leaf]) -> None:
    unknown = sorted(set(given) - set(named)) if isinstance(given, Mapping) else []
    if unknown:
        raise OptionError(f"{what} names {', '.join(map(repr, unknown))}; the space has {sorted(named)}.")
