"""What flows, and what does not.

A *state* is a tensor, or a plain dict of named states: atom positions, atom types, bonds. A *context* is everything
about a batch that stays fixed while the state flows: which sites are real, the conditions, the sites that are
frozen. The few functions here are the only ones except products that iterate over a dict; all other code adds and
scales states without looking inside, and iterates over the leaves of a product by ``zip_leaves``.

Shapes: a tensor on nodes is ``(B, N, *event)``, on edges ``(B, N, N, *event)``, on the graph ``(B, *event)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from fm_science.declarations import renamed_names, warn_renamed

#: A ``Tensor`` or a ``dict[str, State]``. (Spelt as a union, every ``x["name"]`` would be an error to type checkers.)
State: TypeAlias = Any

OPTIONAL = ("free", "known", "previous", "t_end")  # what a context may have in addition to its mask and conditions
UNKNOWN = "a context with frozen sites needs the values they keep: Context(..., free=free, known=x)"


def tree_map(fn: Callable[..., Any], state: State, *rest: State) -> State:
    """Apply ``fn`` to every tensor of ``state`` (and the matching tensors of ``rest``); same dict out."""
    if isinstance(state, Mapping):
        return {name: tree_map(fn, part, *(r[name] for r in rest)) for name, part in state.items()}
    return fn(state, *rest)


def leaves(state: State) -> list[Tensor]:
    """The tensors of a state, in the order of their names."""
    if isinstance(state, Mapping):
        return [leaf for part in state.values() for leaf in leaves(part)]
    return [state]


class Tree(Protocol):
    """A space, a path or a prior: a leaf, or a product of named parts."""

    @property
    def parts(self) -> Mapping[str, Any]:
        """The parts by name; empty for a leaf."""


def zip_leaves(tree: Tree, *states: State) -> list[tuple[Any, ...]]:
    """The leaves of a tree of spaces, paths or priors, each with its tensors: ``(leaf, x, y, ...)``."""
    if not tree.parts:
        return [(tree, *states)]
    return [leaf for k, part in tree.parts.items() for leaf in zip_leaves(part, *(x[k] for x in states))]


def map_leaves(fn: Callable[..., Any], tree: Tree, *states: State) -> State:
    """``fn(leaf, x, y, ...)`` at each leaf of a tree of spaces, paths or priors, as a state of the same parts."""
    if not tree.parts:
        return fn(tree, *states)
    return {k: map_leaves(fn, part, *(x[k] for x in states)) for k, part in tree.parts.items()}


def batch_size(state: State) -> int:
    """The number of samples in the batch."""
    return leaves(state)[0].shape[0]


def add(*states: State) -> State:
    """The sum of states of equal shape."""
    return tree_map(lambda *xs: sum(xs[1:], xs[0]), *states)


def scale(weight: float | Tensor, state: State) -> State:
    """Multiply by a number, or by one number per sample, ``(B,)``."""
    return tree_map(lambda x: expand_like(weight, x) * x, state)


def expand_like(weight: float | Tensor, x: Tensor) -> Any:
    """Append axes to ``weight`` ``(B,)`` until it broadcasts against ``x`` from the left; numbers pass through."""
    if not torch.is_tensor(weight) or weight.ndim == 0:
        return weight
    return weight.reshape(weight.shape + (1,) * (x.ndim - weight.ndim))


def rows(x: Tensor) -> Tensor:
    """A tensor of samples as a table, ``(B, ...)`` to ``(B, D)``; also for no samples."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def take(state: State, index: Tensor) -> State:
    """The samples ``index`` of a batch."""
    return tree_map(lambda x: x[index], state)


def masked_where(mask: Tensor, x: Tensor, value: Tensor | float) -> Tensor:
    """``x`` where ``mask`` is true and ``value`` elsewhere; the mask covers the leading axes of ``x``."""
    return torch.where(expand_like(mask, x), x, value)


@dataclass(frozen=True)
class Context:
    """Everything about a batch that does not flow.

    Attributes:
        mask: ``(B, N)`` bool, which sites are real (the others are padding).
        cond: named conditions, each with the batch first: labels ``(B,)``, properties, coordinates of sensors.
        free: ``(B, N)`` bool, which sites may move, or a dict with one such tensor for each part; ``None``: all. An
            edge is frozen when both its ends are.
        known: the values that frozen sites keep, a state of the full shape; required with ``free``, of those parts
            that have frozen sites.
        previous: the last predicted endpoint, for self-conditioned networks; set by ``Flow`` once a step.
        t_end: the end time ``(B,)`` of a step, for two-time networks; set by the ``FlowMap`` solver and
            objective. ``None``: the same as t, where such a network predicts the velocity.
    """

    mask: Tensor
    cond: Mapping[str, Tensor] = field(default_factory=dict)
    free: Any = None
    known: Any = None
    previous: Any = None
    t_end: Tensor | None = None

    def __post_init__(self) -> None:
        if self.free is not None and self.known is None:
            raise ValueError(UNKNOWN)

    def __repr__(self) -> str:
        counts = self.mask.sum(1).tolist() if self.mask.ndim > 1 else []
        sites = f"{min(counts)} to {max(counts)}" if len(set(counts)) > 1 else f"{counts[0] if counts else 0}"
        cond = [f"{name} {tuple(value.shape)}" for name, value in self.cond.items()]
        more = [name for name in OPTIONAL if object.__getattribute__(self, name) is not None]
        return f"Context({', '.join([f'{self.size} samples of {sites} sites', *cond, *more])})"

    @staticmethod
    def full(n: int, sites: int = 1, **cond: Tensor) -> Context:
        """A context of ``n`` samples whose ``sites`` are all real; conditions by name."""
        return Context(torch.ones(n, sites, dtype=torch.bool), cond)

    @property
    def until(self) -> Tensor | None:
        """The old name of ``t_end``, for one release."""
        warn_renamed("Context.until", "t_end")
        return self.t_end

    @property
    def size(self) -> int:
        """The number of samples in the batch."""
        return self.mask.shape[0]

    def sites(self, on: str) -> Tensor:
        """Which sites are real: nodes ``(B, N)``, edges ``(B, N, N)`` without the diagonal, graph ``(B,)``."""
        if on == "graph":
            return torch.ones_like(self.mask[:, 0])
        if on == "nodes":
            return self.mask
        diagonal = torch.eye(self.mask.shape[1], dtype=torch.bool, device=self.mask.device)
        return self.mask[:, :, None] & self.mask[:, None, :] & ~diagonal

    def frozen(self, on: str) -> Tensor | None:
        """Which sites are fixed at ``known``; ``None`` if nothing is frozen. A graph site is frozen only by its own
        ``(B,)`` tensor. Raises ValueError if a part has frozen sites but no known values."""
        if self.free is None or (on == "graph" and self.free.ndim != 1):
            return None
        if isinstance(self.known, Mapping) and not self.known:
            raise ValueError(UNKNOWN)
        if on == "edges":
            return ~self.free[:, :, None] & ~self.free[:, None, :]
        return ~self.free

    def part(self, name: str) -> Context:
        """The context for one part of a product."""
        if self.free is None:
            return self
        free = self.free.get(name) if isinstance(self.free, Mapping) else self.free
        return replace(self, free=free, known=self.known.get(name, {}))  # no values: a part may have no frozen sites

    def take(self, index: Tensor) -> Context:
        """The samples ``index`` of the batch."""
        return self._each(lambda x: x[index])

    def to(self, device: torch.device | str, **options: Any) -> Context:
        """The same context on another device."""
        return self._each(lambda x: x.to(device, **options))

    def _each(self, fn: Callable[[Tensor], Tensor]) -> Context:
        optional = {n: getattr(self, n) for n in OPTIONAL}
        moved = {n: None if v is None else tree_map(fn, v) for n, v in optional.items()}
        return replace(self, mask=fn(self.mask), cond={k: fn(v) for k, v in self.cond.items()}, **moved)


__getattr__ = renamed_names(__name__, {"lift": "expand_like", "pin": "masked_where"})
