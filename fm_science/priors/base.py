"""The definition of a prior, independent priors on the parts of a product, and a data set as the prior of another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from types import MappingProxyType

import torch
from torch import Tensor

from fm_science.spaces.base import BoundLeaf, Space
from fm_science.state import Context, State, leaves, map_leaves, take, tree_map, zip_leaves


class Prior(ABC):
    """A distribution of noise on a space."""

    parts: Mapping[str, Prior] = MappingProxyType({})  #: the priors of a product by name; empty for one space
    gaussian: bool = False  #: whether it is a centred Gaussian distribution on a linear space

    @property
    def coordinate_std(self) -> float | None:
        """The standard deviation of each coordinate, if coordinates are independent Gaussians of equal standard
        deviation."""
        return None

    @property
    def class_probabilities(self) -> Tensor | None:
        """The probabilities of the classes ``(classes,)``, if sites are independent samples of classes."""
        return None

    @abstractmethod
    def sample(self, space: Space, context: Context) -> State:
        """One point of ``space`` for each sample of ``context``. Raises TypeError if the distribution is not
        defined."""

    def log_prob(self, space: Space, x: State) -> Tensor:
        """Log-density in nats at points of a bound space, ``(B,)``. Raises TypeError if there is none."""
        raise TypeError(f"{self!r} has no density on {space!r}.")

    def correlate(self, space: Space, u: Tensor) -> Tensor:
        """The covariance of the noise times ``u``, a derivative with respect to the points of a bound linear space; a
        tangent. Raises TypeError if the distribution is not Gaussian."""
        raise TypeError(f"{self!r} has no known covariance on {space!r}.")

    def scaled(self, factor: float) -> Prior:
        """The distribution of ``factor`` times the noise. Raises TypeError if noise has no scale."""
        raise TypeError(f"{self!r} cannot be scaled.")


def bound(prior: Prior, space: Space, context: Context) -> tuple[BoundLeaf, Tensor]:
    """The leaf space bound to the context, if it is not bound yet, and an empty tensor with dtype and device. Raises
    TypeError on a product, with the line to write instead."""
    if space.parts:
        parts = ", ".join(f"{k}={suggestion(s)}" for k, s in space.parts.items())
        raise TypeError(f"{prior!r} is a prior for one space; on a product write ProductPrior({parts}).")
    here = space if isinstance(space, BoundLeaf) else space.leaf.bind(context)
    return here, torch.empty((), device=context.mask.device)


def cast(space: Space, x: State, like: Tensor) -> State:
    """Noise on a bound space in the dtype and on the device of ``like``. In a wider dtype a point is only as near to
    the space as the precision of the narrower one, so it is projected again."""
    wider = any(torch.promote_types(leaf.dtype, like.dtype) != leaf.dtype for leaf in leaves(x))
    x = tree_map(lambda leaf: leaf.to(like), x)
    return space.project(x) if wider else x


def suggestion(space: Space) -> str:
    """A prior that fits the space, as code."""
    if space.parts:
        return f"ProductPrior({', '.join(f'{k}={suggestion(s)}' for k, s in space.parts.items())})"
    leaf = space.leaf
    if not leaf.smooth:
        return f"Classes([1 / {leaf.classes}] * {leaf.classes})"
    if leaf.linear:
        return "Normal()"
    return "Uniform()" if leaf.volume < float("inf") else "Wrapped(1.0)"


class ProductPrior(Prior):
    """Independent priors on the parts of a product space, with the parts' names."""

    def __init__(self, **parts: Prior) -> None:
        self.parts = parts

    def __repr__(self) -> str:
        return f"ProductPrior({', '.join(f'{k}={v!r}' for k, v in self.parts.items())})"

    def sample(self, space: Space, context: Context) -> State:
        if set(self.parts) != set(space.parts):
            raise ValueError(f"{self!r} has parts {sorted(self.parts)}, but the space has {sorted(space.parts)}.")
        return {k: p.sample(space.parts[k], context.part(k)) for k, p in self.parts.items()}

    def log_prob(self, space: Space, x: State) -> Tensor:
        return reduce(torch.add, (p.log_prob(space.parts[k], x[k]) for k, p in self.parts.items()))

    def replaced(self, **parts: Prior) -> ProductPrior:
        """The same prior with some parts replaced."""
        return ProductPrior(**{**self.parts, **parts})


@dataclass(frozen=True, eq=False)
class Data(Prior):
    """A second data set as the source: each sample is one of its states with as many real sites as the context
    requests, with replacement. It has no density.

    Args:
        states: a batch of states.
        mask: ``(M, N)`` bool, their real sites; ``None``: all.

    Raises ValueError in sampling if no state has as many real sites as the context requests.
    """

    states: State = field(repr=False)
    mask: Tensor | None = field(default=None, repr=False)

    def sample(self, space: Space, context: Context) -> State:
        space, wanted = space.bind(context), context.mask.sum(1)
        stored = _sizes(space, self.states) if self.mask is None else self.mask.sum(1)
        fits = wanted[:, None] == (wanted[:, None] if stored is None else stored.to(wanted.device))
        if not bool(fits.any(1).all()):
            sizes = wanted[~fits.any(1)].unique().tolist()
            raise ValueError(f"Data() has no state with {sizes} real sites; request sizes that it has.")
        first = leaves(self.states)[0]
        alike = fits.shape[1] == 1
        index = torch.randint(len(first), (len(wanted),)) if alike else torch.multinomial(fits.float(), 1).squeeze(1)
        return space.project(_fitted(space, take(self.states, index.to(first.device)), context))


def _sizes(space: Space, x: State) -> Tensor | None:
    """The number of sites of the states of a batch, ``(1,)``; ``None`` if they are on the graph as a whole."""
    found = [y.shape[1] for leaf, y in zip_leaves(space, x) if leaf.mask.ndim > 1]
    return torch.tensor(found[:1]) if found else None


def _fitted(space: Space, x: State, context: Context) -> State:
    """``x`` cropped or padded to the context's number of sites, in default dtype on its device."""

    def fitted(leaf: BoundLeaf, y: Tensor) -> Tensor:
        y = y.to(context.mask.device, torch.get_default_dtype())
        out = leaf.leaf.origin(y).expand(leaf.shape).clone()
        window = tuple(slice(min(a, b)) for a, b in zip(y.shape[: leaf.mask.ndim], out.shape, strict=False))
        out[window] = y[window]
        return out

    return map_leaves(fitted, space, x)
