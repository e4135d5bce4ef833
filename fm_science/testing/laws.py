"""The common part of the checks: a list of laws with their measured errors, and random points to measure them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fm_science.spaces.base import Space
from fm_science.state import Context, State, leaves, scale, tree_map


class Laws:
    """The laws of one subject. Of several errors of one law the largest is kept; :meth:`enforce` raises for those that
    are too large.

    Args:
        subject: what is checked, for the message.
        mend: the methods to correct, by the first words of a law, for the message.
    """

    def __init__(self, subject: Any, mend: Mapping[str, str] | None = None) -> None:
        self.subject, self.mend = subject, dict(mend or {})
        self.errors: dict[str, float] = {}
        self.broken: dict[str, str] = {}

    def small(self, law: str, error: Tensor | float, tolerance: float, detail: str = "") -> None:
        """``error`` must be at most ``tolerance`` (and not NaN) everywhere; ``detail`` describes the worst place."""
        value = float(torch.as_tensor(error).detach().abs().double().max()) if torch.as_tensor(error).numel() else 0.0
        before = self.errors.get(law, 0.0)
        worst = max(before, value) if value == value and before == before else float("nan")
        self.errors[law] = worst
        if not value <= tolerance and (law not in self.broken or not value <= before):
            self.broken[law] = f"error {worst:.3g}, allowed {tolerance:.3g}{f': {detail}' if detail else ''}"

    def equal(self, law: str, given: State, expected: State, tolerance: float) -> None:
        """Two states must agree within ``tolerance`` times the size of the expected one, but at least one."""
        for a, b in zip(leaves(given), leaves(expected), strict=True):
            if a.shape != b.shape:
                self.holds(law, False, f"shape {tuple(a.shape)}, expected {tuple(b.shape)}")
            elif a.numel():
                self.small(law, (a - b).abs().max() / b.abs().max().clamp_min(1.0), tolerance)

    def holds(self, law: str, ok: bool | Tensor, detail: str) -> None:
        """A law that is true or false; ``detail`` gives what was found and what was expected."""
        self.errors.setdefault(law, 0.0)
        if not bool(ok):
            self.errors[law] = float("inf")
            self.broken[law] = detail

    def finite(self, law: str, state: Any) -> None:
        """No entry of a state (or of a list of tensors) may be NaN or infinite."""
        tensors = [x for x in (state if isinstance(state, list | tuple) else leaves(state)) if x is not None]
        bad = sum(int((~torch.isfinite(x)).sum()) for x in tensors)
        self.holds(law, bad == 0, f"{bad} of {sum(x.numel() for x in tensors)} entries are not finite")

    def enforce(self) -> dict[str, float]:
        """The errors by law. Raises AssertionError if a law fails."""
        if self.broken:
            lines = "\n".join(f"  {law}: {detail}{self._hint(law)}" for law, detail in self.broken.items())
            raise AssertionError(f"{self.subject!r} breaks {len(self.broken)} of {len(self.errors)} laws:\n{lines}")
        return self.errors

    def _hint(self, law: str) -> str:
        """The methods to correct if a law fails: those of the longest matching first words."""
        words = max((words for words in self.mend if law.startswith(words)), key=len, default=None)
        return "" if words is None else f"; mend {self.mend[words]}"


def ragged(sites: Sequence[int], extra: int = 0, cond: Mapping[str, Tensor] | None = None) -> Context:
    """A context whose samples have the given numbers of real sites, with ``extra`` columns of padding."""
    counts = torch.tensor(list(sites))
    return Context(torch.arange(int(counts.max()) + extra) < counts[:, None], dict(cond or {}))


def origin(space: Space, dtype: torch.dtype) -> State:
    """The point of a bound space whose every free site is at the origin."""
    if space.parts:
        return {name: origin(part, dtype) for name, part in space.parts.items()}
    like = torch.empty((), dtype=dtype, device=space.mask.device)
    return space.project(space.leaf.origin(like).expand(*space.mask.shape, *space.leaf.event).clone())


def random_point(space: Space, dtype: torch.dtype, spread: float = 1.0) -> State:
    """A random point of a bound space: a normal step from the origin, or a random class."""
    if space.parts:
        return {name: random_point(part, dtype, spread) for name, part in space.parts.items()}
    start = origin(space, dtype)
    if not space.smooth:
        return space.project(torch.randn_like(start))
    return space.exp(start, spread * space.gaussian(start))


def random_ambient(state: State) -> State:
    """A standard normal state of the same shapes, not tangent."""
    return tree_map(torch.randn_like, state)


def freeze(context: Context, space: Space, dtype: torch.dtype) -> Context:
    """The same batch with about half of the sites of every sample fixed at random known values."""
    known = random_point(space.bind(context), dtype)
    free = torch.arange(context.mask.shape[1]) % 2 == torch.arange(len(context.mask))[:, None] % 2
    return replace(context, free=free, known=known)


def widen(space: Space, state: State, extra: int) -> State:
    """A state with ``extra`` more padded sites, for a space that is bound to the wider batch."""
    if space.parts:
        return {name: widen(part, state[name], extra) for name, part in space.parts.items()}
    axes = space.mask.ndim - 1
    out = torch.randn(*(n + extra for n in state.shape[1 : 1 + axes]), *state.shape[1 + axes :], dtype=state.dtype)
    out = out.expand(len(state), *out.shape).clone()
    out[(slice(None), *(slice(n) for n in state.shape[1 : 1 + axes]))] = state
    return out


def narrow(space: Space, state: State, extra: int) -> State:
    """The inverse of :func:`widen`."""
    if space.parts:
        return {name: narrow(part, state[name], extra) for name, part in space.parts.items()}
    axes = space.mask.ndim - 1
    return state[(slice(None), *(slice(n - extra) for n in state.shape[1 : 1 + axes]))]


def log_stretch(s: Any, x: Tensor, u: Tensor) -> Tensor:
    """Log of the factor by which ``exp`` at ``x`` stretches volume at ``u``, from its derivatives: ``(B, *sites)``."""
    basis = [s.gaussian(x) for _ in range(s.leaf.dimension)]
    y = s.exp(x, u)
    moved = [torch.func.jvp(lambda v: s.exp(x, v), (u,), (e,))[1] for e in basis]
    moved = [_as_tangent(s, y, m) for m in moved]

    def gram(point: Tensor, vectors: list[Tensor]) -> Tensor:
        return torch.stack([torch.stack([s.leaf.dot(point, a, b) for a in vectors], -1) for b in vectors], -1)

    stretch = torch.linalg.slogdet(gram(y, moved))[1] - torch.linalg.slogdet(gram(x, basis))[1]
    return 0.5 * torch.where(s.free_mask, stretch, 0.0)


def rate_along(s: Any, x: State, slope: State, u: State) -> Tensor:
    """The rate at which a function with the ambient derivative ``slope`` at ``x`` changes along the tangent ``u``,
    ``(B,)``."""
    zero = leaves(x)[0].new_zeros(())
    motion = torch.func.jvp(lambda h: s.exp(x, scale(h, u)), (zero,), (torch.ones_like(zero),))[1]
    rates: Any = [(a * b).flatten(1).sum(1) for a, b in zip(leaves(slope), leaves(motion), strict=True)]
    return sum(rates)


def _as_tangent(s: Any, y: Tensor, motion: Tensor) -> Tensor:
    """A motion of points as a tangent: the derivative of the logarithm along it."""
    if s.leaf.tangent_event == s.leaf.event:
        return motion
    h = 1e-6  # rotations only: their coordinates are of size one everywhere
    return (s.leaf.log(y, y + h * motion) - s.leaf.log(y, y - h * motion)) / (2 * h)
