"""Which noise is paired with which molecule, if a part of a molecule is given or it has dummy atoms.

The network learns to complete fragments and to remove dummy atoms from its batches: one freezes sites, the other adds
some. So both are couplings around the one that pairs positions, and run in data workers like it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fm_science.couplings import Coupling
from fm_science.declarations import derived
from fm_science.priors import Prior
from fm_science.spaces.base import Space
from fm_science.state import Context

from .conditioning import connected, fakes

State = dict[str, Tensor]


@dataclass(frozen=True)
class Completion(Coupling):
    """In a share of batches molecules are partly given: a random connected fragment of each is frozen, and the rest
    starts from noise around the fragment's centre, as in completing a user's fragment.

    Args:
        law: pairs whole molecules.
        around: pairs the free atoms of a batch with fragments.
        share: of the batches that get fragments.
        std: standard deviation of the noise of free atoms, angstrom.
        most: a fragment has at most this share of the atoms.
    """

    law: Coupling
    around: Coupling
    share: float
    std: float
    most: float = 0.8

    @derived
    def independent(self) -> bool:
        return self.law.independent

    @derived
    def independent_parts(self) -> tuple[str, ...]:
        return self.law.independent_parts

    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        if float(torch.rand(())) >= self.share:
            return self.law.pair(space, x0, x1, context)
        sizes = (torch.rand(context.size).to(context.mask.device) * self.most * context.mask.sum(1)).long().clamp_min(1)
        given = connected(x1["bonds"][..., 0] < 0.5, context.mask, sizes)
        middle = (x1["positions"] * given[..., None]).sum(1, keepdim=True) / sizes_of(given)
        x1 = {**x1, "positions": (x1["positions"] - middle) * context.mask[..., None]}
        context = replace(context, free=~given, known=x1)
        space = space.bind(context)
        x0 = space.project({**x0, "positions": self.std * torch.randn_like(x1["positions"])})
        return self.around.pair(space, x0, x1, context)


def sizes_of(given: Tensor) -> Tensor:
    """The number of given atoms, ``(B, 1, 1)``, at least one."""
    return given.sum(1).clamp_min(1)[:, None, None]


@dataclass(frozen=True)
class FakeAtoms(Coupling):
    """Some molecules get dummy atoms: of a separate class, without bonds, close to a real atom. They are removed when
    the molecule is decoded, so a sample may end smaller than it began (Dunn & Koes 2025).

    Args:
        law: pairs molecules afterwards.
        prior: of the noise, which is drawn again for more atoms.
        share: of the molecules that get some.
        kind: number of the class of dummy atoms.
    """

    law: Coupling
    prior: Prior
    share: float
    kind: int

    @derived
    def independent(self) -> bool:
        return self.law.independent

    @derived
    def independent_parts(self) -> tuple[str, ...]:
        return self.law.independent_parts

    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        count = context.mask.sum(1)
        more = fakes(count) * (torch.rand(count.shape).to(count.device) < self.share)
        if not bool(more.any()):
            return self.law.pair(space, x0, x1, context)
        sites = torch.arange(int((count + more).max()), device=count.device)
        context = replace(context, mask=sites < (count + more)[:, None])
        space = space.bind(context)
        x1 = space.project(self._widened(space, x1, count))
        x0 = {k: v.to(x1["positions"]) for k, v in self.prior.sample(space, context).items()}
        return self.law.pair(space, x0, x1, context)

    def _widened(self, space: Any, x1: State, count: Tensor) -> State:
        """The same molecules with as many sites as the space has; those beyond ``count`` (B,) are padding."""
        b, n = space.parts["positions"].mask.shape
        wide = {}
        for name, part in space.parts.items():
            out = part.leaf.origin(x1[name]).expand(part.shape).clone()
            window = tuple(slice(size) for size in x1[name].shape[:-1])
            out[window] = x1[name][: len(out)]
            wide[name] = out
        fake = torch.arange(n, device=count.device) >= count[:, None]
        beside = (torch.rand(b, n, device=count.device) * count[:, None]).long()
        near = wide["positions"].gather(1, beside[..., None].expand(b, n, 3))
        places = near + torch.randn_like(near)
        wide["positions"] = torch.where(fake[..., None], places, wide["positions"])
        corner = torch.nn.functional.one_hot(torch.tensor(self.kind), wide["atoms"].shape[-1]).to(wide["atoms"])
        wide["atoms"] = torch.where(fake[..., None], corner, wide["atoms"])
        return wide
