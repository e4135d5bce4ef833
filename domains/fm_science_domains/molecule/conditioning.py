"""Conditions of molecules: a given size, given properties, or a given fragment.

Properties are given to the network as numbers in the context, NaN for no condition. A network that was trained with
some of them dropped can be guided: its prediction is extrapolated away from that without the property (Ho &
Salimans 2022). A fragment is a set of frozen atoms with the bonds between them; the atoms around it are free, and their
number is drawn like the size of any molecule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.errors import OptionError, nearest
from fm_science.state import Context, State


def names(text: str, known: Mapping[str, Any], option: str) -> tuple[str, ...]:
    """The properties of ``gap+mu``. Raises OptionError if the data have no such property."""
    wanted = tuple(word for word in text.split("+") if word)
    for word in wanted:
        if word not in known:
            hint = nearest(word, known) if known else "these data carry no properties"
            raise OptionError(f"{option}={text!r}: no property {word!r}; {hint}")
    return wanted


def targets(text: str, conditions: tuple[str, ...]) -> dict[str, float]:
    """The values of ``gap:6.8+mu:2.0``. Raises OptionError if the network was not trained for them."""
    found: dict[str, float] = {}
    for word in filter(None, text.split("+")):
        name, _, value = word.partition(":")
        if name not in conditions:
            trained = ", ".join(conditions) or "no property"
            raise OptionError(f"sample.target={text!r}: the network was trained on {trained} (objective.condition)")
        try:
            found[name] = float(value)
        except ValueError:
            raise OptionError(f"sample.target={text!r}: expected name:number, such as {name}:2.5") from None
    return found


class Properties(nn.Module):
    """Properties of whole molecules as features.

    Args:
        known: mean and standard deviation over the training data by name, in the properties' own units.
        width: features out.
        bumps: Gaussian basis functions per property, over three standard deviations on either side.
    """

    mean: Tensor
    std: Tensor
    centre: Tensor

    def __init__(self, known: Mapping[str, tuple[float, float]], width: int, bumps: int = 12) -> None:
        super().__init__()
        self.names = tuple(known)
        self.register_buffer("mean", torch.tensor([float(m) for m, _ in known.values()]))
        self.register_buffer("std", torch.tensor([max(float(s), 1e-6) for _, s in known.values()]))
        self.register_buffer("centre", torch.linspace(-3, 3, bumps))
        self.embed = nn.Sequential(nn.Linear(len(known) * (bumps + 2), width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, context: Context, like: Tensor) -> Tensor:
        """``(B, width)``; NaN or an absent property means no condition."""
        nothing = like.new_full((context.size,), torch.nan)
        values = torch.stack([context.cond.get(name, nothing).to(like) for name in self.names], -1)
        known = values.isfinite()
        z = torch.where(known, (values - self.mean) / self.std, 0.0)
        bumps = (-2 * (z[..., None] - self.centre).square()).exp() * known[..., None]
        return self.embed(torch.cat([bumps.flatten(1), z, known.to(like)], -1))


MOST = 10_000  #: atoms of a molecule


def sizes(text: int | str | None, histogram: Tensor, least: int = 1) -> Tensor:
    """The probability of each number of atoms, ``(M + 1,)``: that of the training data, the requested number, or a
    uniform one in a range ``10-20``; none below ``least``. Raises OptionError if nothing is left."""
    if text is None:
        chance = histogram.double().clone()
    else:
        low, _, high = str(text).partition("-")
        if not low.isdecimal() or (high and not high.isdecimal()) or int(low) < 1 or int(high or low) < int(low):
            raise OptionError(f"sample.atoms={text!r}: expected a number of atoms, or a range such as 10-20")
        if int(high or low) > MOST:
            raise OptionError(f"sample.atoms={text!r}: expected at most {MOST:,} atoms")
        chance = torch.zeros(int(high or low) + 1, dtype=torch.float64)
        chance[int(low) :] = 1
    chance[: min(least, len(chance))] = 0
    if not bool(chance.any()):
        raise OptionError(f"sample.atoms={text!r}: the fragment leaves no atom to be drawn; ask for at least {least}")
    return chance


def fakes(count: Tensor) -> Tensor:
    """The number of dummy atoms that are added to ``count`` (B,) real ones: uniform from none to three in ten."""
    most = (0.3 * count).ceil()
    return (torch.rand(count.shape).to(count.device) * (most + 1)).long().clamp(max=most.long())


@dataclass(frozen=True)
class Request:
    """The request for new molecules; called with their number, it draws their sizes from torch's generator.

    Args:
        histogram: ``(M + 1,)`` how many training molecules have each number of atoms.
        classes: number of classes of each part, a mask class included.
        conditions: names of the properties that condition the network.
        atoms: a number of atoms, a range, or None for the histogram.
        target: target properties as text.
        fragment: state of a fragment that every molecule contains, or None.
        origin: ``(3,)`` the centre of the fragment, angstrom.
        fakes: share of the molecules that begin with dummy atoms, if no number of atoms is requested.
    """

    histogram: Tensor
    classes: Mapping[str, int]
    conditions: tuple[str, ...] = ()
    atoms: int | str | None = None
    target: str = ""
    fragment: State | None = None
    origin: Tensor | None = None
    fakes: float = 0.0

    def __call__(self, n: int, atoms: int | str | None = None, target: str | None = None) -> Context:
        """The context of ``n`` molecules; ``atoms`` and ``target`` override the earlier ones."""
        least = 1 if self.fragment is None else len(self.fragment["atoms"]) + 1
        atoms = self.atoms if atoms is None else atoms
        drawn = torch.multinomial(sizes(atoms, self.histogram, least), n, replacement=True)
        if self.fakes and atoms is None:
            drawn = drawn + fakes(drawn) * (torch.rand(n) < self.fakes)
        wanted = targets(self.target if target is None else target, self.conditions)
        values = {name: torch.full((n,), wanted.get(name, torch.nan)) for name in self.conditions}
        context = Context(torch.arange(int(drawn.max())) < drawn[:, None], values)
        if self.fragment is None or self.origin is None:
            return context
        placed = replace(context, cond={**values, "origin": self.origin.expand(n, 3)})
        return around(placed, self.fragment, self.classes)


def around(context: Context, fragment: State, sites: Mapping[str, int]) -> Context:
    """The context with the first sites of every sample frozen at a fragment.

    Args:
        context: at least as many real sites in each sample as the fragment has atoms.
        fragment: its unbatched state, class numbers; positions as they remain.
        sites: number of classes of each part that is a class.
    """
    b, n = context.mask.shape
    count = len(fragment["atoms"])
    free = torch.arange(n).expand(b, n) >= count
    known: dict[str, Tensor] = {"positions": torch.zeros(b, n, 3)}
    known["positions"][:, :count] = fragment["positions"]
    for name, classes in sites.items():
        corners = torch.nn.functional.one_hot(fragment[name], classes).to(known["positions"])
        edges = fragment[name].ndim == 2
        shape = (b, n, n, classes) if edges else (b, n, classes)
        known[name] = torch.zeros(shape)
        known[name][..., 0] = 1
        if edges:
            known[name][:, :count, :count] = corners
        else:
            known[name][:, :count] = corners
    return replace(context, free=free, known=known)


def connected(bonds: Tensor, mask: Tensor, sizes: Tensor) -> Tensor:
    """A random connected set of atoms of each molecule, ``(B, N)`` bool.

    Args:
        bonds: ``(B, N, N)`` bool, which atoms are bonded.
        mask: ``(B, N)`` bool, real atoms.
        sizes: ``(B,)`` how many atoms; fewer if the molecule is not connected.
    """
    chance = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, -1)
    chosen = torch.nn.functional.one_hot(chance.argmax(1), mask.shape[1]).bool() & (sizes > 0)[:, None]
    for _ in range(int(sizes.max()) - 1):
        rim = (bonds & chosen[:, None]).any(-1) & ~chosen & mask
        draw = torch.rand(mask.shape, device=mask.device).masked_fill(~rim, -1)
        grows = rim.any(1) & (chosen.sum(1) < sizes)
        chosen = chosen | (torch.nn.functional.one_hot(draw.argmax(1), mask.shape[1]).bool() & grows[:, None])
    return chosen
