"""Symmetric assemblies: one chain is drawn, and its copies by the rotations of a group stand around it in every step.

The groups are the cyclic ones (C3: three chains about an axis) and the dihedral ones (D2: two about an axis, and those
again turned over). The network sees the whole assembly as one chain with gaps, too wide for a bond, and what it
predicts of the first chain is copied to the others, so an assembly is exactly symmetric from noise to data. The network
was trained on single chains: how chains touch is not learned but follows from how parts of one chain do (the symmetric
noise and copying of Watson et al. 2023, with a network that never saw an interface).
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from fm_science.errors import OptionError
from fm_science.networks import WrappedNetwork
from fm_science.state import Context, State, expand_like

from .geometry import CLASH, CONTACT
from .sheets import UNSTATED

GAP = 33  # residues that are passed by between two chains: more than the network tells apart
APART = 0.5  # nm: how far from the axis the noise of a chain has its centre
MOST = 12  # chains of an assembly


def rotations(name: str) -> Tensor:
    """(M, 3, 3) the rotations of a group such as C3 or D2, the first the identity; the axis is z, of dihedral ones x
    too. Raises OptionError for another name, or more than twelve chains."""
    found = re.fullmatch(r"([CD])(\d+)", name.upper())
    order = int(found[2]) if found else 0
    if not found or order < 2 or order * (1 + (found[1] == "D")) > MOST:
        raise OptionError(f"symmetry={name!r}: expected C2 to C{MOST}, or D2 to D{MOST // 2}")
    angle = 2 * math.pi * torch.arange(order, dtype=torch.float64) / order
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros(order), torch.ones(order)
    turns = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).view(-1, 3, 3)
    if found[1] == "D":
        turns = torch.cat([turns, turns @ torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=turns.dtype))])
    return turns.float()


def copied(context: Context, turns: Tensor) -> Context:
    """The context of assemblies of M chains from that of single chains without padding, (B, N).

    ``cond["source"]`` (B, M N) is the site of each residue in the first chain, ``cond["unit"]`` (B, M N) the number of
    its chain and ``cond["turns"]`` (B, M N, 3, 3) the rotation that carries the first chain there.
    """
    chains, (size, sites) = len(turns), context.mask.shape
    unit = torch.arange(chains).repeat_interleave(sites)
    source = torch.arange(sites).repeat(chains)
    structure, sheet, residue = (context.cond[name][:, source] for name in ("structure", "sheet", "residue"))
    sheet = sheet[:, :, source].masked_fill(unit[:, None] != unit, UNSTATED)
    step = int(context.cond["residue"].max()) + 1 + GAP
    cond = {
        "residue": residue + unit * step, "structure": structure, "sheet": sheet,
        "unit": unit.expand(size, -1).clone(), "source": source.expand(size, -1).clone(),
        "turns": turns[unit].expand(size, -1, -1, -1).clone(),
    }  # fmt: skip
    return Context(context.mask[:, source], {**context.cond, **cond})


def symmetric(state: State, context: Context) -> State:
    """Frames (B, M N, ...) whose chains are copies of the first one; padded sites at the origin."""
    source, turns, mask = context.cond["source"], context.cond["turns"], context.mask
    places, frames = state["translations"], state["rotations"]
    turns = turns.to(places)
    places = (turns @ places.gather(1, source[..., None].expand_as(places))[..., None])[..., 0]
    frames = turns @ frames.gather(1, source[..., None, None].expand_as(frames))
    eye = torch.eye(3, dtype=frames.dtype, device=frames.device)
    return {
        "translations": places * mask[..., None],
        "rotations": torch.where(mask[..., None, None], frames, eye),
    }


class Symmetric(WrappedNetwork):
    """A network that sees symmetric assemblies, and predicts them. Noise is seen shifted from the axis, so that chains
    begin beside each other: at time t by (1 - t) APART, as if its law were centred there."""

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        places = x["translations"]
        turned = (context.cond["turns"][..., 2, 2].amin(1) < 0).to(places)  # dihedral: chains part along the axis too
        away = torch.stack([torch.ones_like(turned), 0.5 * turned, turned], -1)[:, None] * APART
        away = places + expand_like(1 - t, places) * away
        seen = symmetric({**x, "translations": away}, context)
        return symmetric(self.network(seen, t, context), context)


def first(state: State, context: Context) -> tuple[State, Context]:
    """State and context of the first chain of each assembly."""
    most = int((context.cond["unit"] == 0).mul(context.mask).sum(1).max())
    mask = (context.mask & (context.cond["unit"] == 0))[:, :most]
    cond = {name: context.cond[name][:, :most] for name in ("residue", "structure")}
    sheet = context.cond["sheet"][:, :most, :most]
    return {name: part[:, :most] for name, part in state.items()}, Context(mask, {**cond, "sheet": sheet})


def others(coords: Tensor, context: Context, row: int) -> tuple[Tensor, ...]:
    """The other chains (L, 4, 3) of assembly number ``row``, from the coordinates of the first."""
    unit, turns = context.cond["unit"][row], context.cond["turns"][row].to(coords)
    chains = int(unit[context.mask[row]].max()) + 1
    return tuple(coords @ turns[int((unit == k).nonzero()[0])].T for k in range(1, chains))


def interface(coords: Tensor, mates: tuple[Tensor, ...]) -> dict[str, float]:
    """How the first chain (L, 4, 3) meets the others: pairs of alpha carbons of two chains below 3.6 angstrom and
    residues with one below 8 angstrom, both for each residue of the first chain."""
    ca = torch.cat([mate[:, 1] for mate in mates]).double()
    distance = torch.cdist(coords[:, 1].double(), ca)
    return {
        "clashes_between": (distance < CLASH).sum().item() / len(coords),
        "contacts_between": (distance < CONTACT).any(1).double().mean().item(),
    }
