"""Paths side by side on the parts of a product space."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from fm_science.paths.base import Path
from fm_science.priors import Prior, ProductPrior
from fm_science.spaces.base import Product
from fm_science.state import Context, State


class ProductPath(Path):
    """Paths side by side on the parts of a product space, all on one clock but each with its own schedule. A part may
    be a product too. Raises TypeError where its parts do not all flow or all jump, since steps are split between the
    two on the first level."""

    def __init__(self, **parts: Path) -> None:
        for name, part in parts.items():
            _alike(name, part)
        self.parts = parts
        self.space = Product(**{k: p.space for k, p in parts.items()})

    def __repr__(self) -> str:
        return f"ProductPath({', '.join(f'{k}={v!r}' for k, v in self.parts.items())})"

    @property
    def singular(self) -> bool:
        return any(p.singular for p in self.parts.values())

    @property
    def steep(self) -> bool:
        return any(p.steep for p in self.parts.values())

    @property
    def has_score(self) -> bool:
        return all(p.has_score for p in self.parts.values())

    @property
    def score_needs_independence(self) -> bool:
        return any(p.score_needs_independence for p in self.parts.values())

    def bind(self, context: Context, prior: Prior | None = None) -> ProductPath:
        priors = {} if prior is None else prior.parts
        return ProductPath(**{k: p.bind(context.part(k), priors.get(k)) for k, p in self.parts.items()})

    def replaced(self, **parts: Path) -> ProductPath:
        """The same path with some parts exchanged."""
        return ProductPath(**{**self.parts, **parts})

    def only(self, *names: str) -> ProductPath:
        """The same path on some of the parts."""
        return ProductPath(**{k: p for k, p in self.parts.items() if k in names})

    def split(self) -> tuple[ProductPath, ProductPath]:
        """The parts that move smoothly, and the parts that jump."""
        smooth = {k: p for k, p in self.parts.items() if p.space.smooth}
        return ProductPath(**smooth), ProductPath(**{k: p for k, p in self.parts.items() if k not in smooth})

    def sample(self, x0: State, x1: State, t: Tensor) -> State:
        return {k: p.sample(x0[k], x1[k], t) for k, p in self.parts.items()}

    def loss(self, raw: State, x0: State, x1: State, x: State, t: Tensor) -> dict[str, Tensor]:
        return {k: p.loss(raw[k], x0[k], x1[k], x[k], t) for k, p in self.parts.items()}

    def velocity(self, raw: State, x: State, t: Tensor) -> State:
        return {k: p.velocity(raw[k], x[k], t) for k, p in self.parts.items()}

    def endpoint(self, raw: State, x: State, t: Tensor) -> State:
        return {k: p.endpoint(raw[k], x[k], t) for k, p in self.parts.items()}

    def score(self, raw: State, x: State, t: Tensor) -> State:
        return {k: p.score(raw[k], x[k], t) for k, p in self.parts.items()}

    def step(self, raw: State, x: State, t: Tensor, s: Tensor) -> State:
        return {k: p.step(raw[k], x[k], t, s) for k, p in self.parts.items()}

    def renoise_step(self, raw: State, x: State, t: Tensor, s: Tensor, keep: State) -> State:
        """``keep`` may be a dict by part; parts that it does not name keep all their noise."""
        shares = keep if isinstance(keep, Mapping) else dict.fromkeys(self.parts, keep)
        return {
            k: p.renoise_step(raw[k], x[k], t, s, shares[k]) if k in shares else p.step(raw[k], x[k], t, s)
            for k, p in self.parts.items()
        }

    def add_noise(self, x: State, t: Tensor, r: Tensor) -> State:
        return {k: p.add_noise(x[k], t, r) for k, p in self.parts.items()}

    def noised(self, x1: State, r: Tensor) -> State:
        return {k: p.noised(x1[k], r) for k, p in self.parts.items()}

    def start_before_end(self, x: State, t: Tensor, independent: bool) -> tuple[State, Tensor]:
        moved = {k: p.start_before_end(x[k], t, independent) for k, p in self.parts.items()}
        return {k: y for k, (y, _) in moved.items()}, reduce(torch.add, (gain for _, gain in moved.values()))

    def check(self, times: Tensor) -> None:
        for path in self.parts.values():
            path.check(times)

    def check_compatible(self, trained: Path) -> None:
        for name, path in self.parts.items():
            path.check_compatible(trained.parts[name])

    def source(self, prior: Prior) -> Prior:
        if not prior.parts:
            return prior
        return ProductPrior(**{k: self.parts[k].source(p) for k, p in prior.parts.items()})

    def modules(self) -> list[nn.Module]:
        return [m for p in self.parts.values() for m in p.modules()]


def _alike(name: str, part: Path) -> None:
    """Raises TypeError for a part within which some parts flow and others jump."""
    if len({path.space.smooth for path in part.parts.values()}) > 1:
        flat = ", ".join(f"{name}_{k}=..." for k in part.parts)
        raise TypeError(
            f"within the part {name!r} some parts flow and others jump, which only the parts of the outer product may: "
            f"name them side by side, ProductPath({flat}), or nest those that flow and those that jump apart."
        )
