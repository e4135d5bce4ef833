"""Bond lengths, angles and torsions of many molecules at once, and distances of two such sets.

Lengths are compared within each kind of bond (two elements and an order), angles within each triple of elements, and
torsions within each kind of middle bond, always over heavy atoms for torsions. A distance between two sets is the mean
over the kinds that are frequent enough in the reference, weighted by their frequency: the Wasserstein-1 distance in
angstrom or degrees, or the Jensen-Shannon divergence of histograms in bits. Torsions are taken without sign, since data
have both mirror images of most molecules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from fm_science.distances import jensen_shannon, line_wasserstein

from .molecule import Molecule, symbol

Kind = tuple[int, ...]
Values = Mapping[Kind, np.ndarray]
LINKS = {1: "-", 2: "=", 3: "#", 4: "~"}
BINS = {"bonds": (0.7, 2.3, 0.02), "angles": (0.0, 180.0, 3.0), "torsions": (0.0, 180.0, 5.0)}  #: low, high, width
ENOUGH = 20  # values of a kind that a comparison needs on either side


@dataclass(frozen=True, eq=False)
class Geometry:
    """The atoms and bonds of many molecules, concatenated. positions: (A, 3) angstrom; atoms: (A,) atomic numbers;
    ends: (E, 2) rows of the two atoms of each bond; orders: (E,)."""

    positions: np.ndarray
    atoms: np.ndarray
    ends: np.ndarray
    orders: np.ndarray

    @staticmethod
    def of(molecules: Sequence[Molecule]) -> Geometry:
        """All molecules with finite coordinates, one after another."""
        whole = [m for m in molecules if len(m) and bool(torch.isfinite(m.positions).all())]
        if not whole:
            return Geometry(np.zeros((0, 3)), np.zeros(0, int), np.zeros((0, 2), int), np.zeros(0, int))
        pairs = [m.bonds.triu(1).nonzero() for m in whole]
        first = np.cumsum([0, *(len(m) for m in whole[:-1])])
        ends = np.concatenate([p.numpy() + f for p, f in zip(pairs, first, strict=True)])
        orders = np.concatenate([m.bonds[p[:, 0], p[:, 1]].numpy() for m, p in zip(whole, pairs, strict=True)])
        positions, atoms = (torch.cat([getattr(m, name) for m in whole]).numpy() for name in ("positions", "atoms"))
        return Geometry(positions.astype(np.float64), atoms, ends, orders)

    @cached_property
    def neighbours(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bonds by atom: (A,) row of the first neighbour of each atom, (A,) number of neighbours, (2 E,) neighbours."""
        centre = self.ends.ravel()
        other = self.ends[:, ::-1].ravel()
        order = np.argsort(centre, kind="stable")
        degree = np.bincount(centre, minlength=len(self.atoms))
        return np.cumsum(degree) - degree, degree, other[order]

    @cached_property
    def bonds(self) -> dict[Kind, np.ndarray]:
        """Lengths in angstrom by (lower element, order, higher element)."""
        a, b = self.ends.T
        low, high = np.minimum(self.atoms[a], self.atoms[b]), np.maximum(self.atoms[a], self.atoms[b])
        lengths = np.linalg.norm(self.positions[a] - self.positions[b], axis=-1)
        return _sorted(np.stack([low, self.orders, high]), lengths)

    @cached_property
    def angles(self) -> dict[Kind, np.ndarray]:
        """Angles in degrees by (lower end, centre, higher end)."""
        first, degree, other = self.neighbours
        centre, i, j = _pairs(np.arange(len(self.atoms)), degree, degree)
        once = i < j
        a, b, c = other[first[centre[once]] + i[once]], centre[once], other[first[centre[once]] + j[once]]
        ends = np.sort(self.atoms[np.stack([a, c])], axis=0)
        return _sorted(np.stack([ends[0], self.atoms[b], ends[1]]), _angle(*self.positions[np.stack([a, b, c])]))

    @cached_property
    def torsions(self) -> dict[Kind, np.ndarray]:
        """Absolute torsions of four heavy atoms in degrees by (lower element, order, higher element) of the middle."""
        first, degree, other = self.neighbours
        bond, i, j = _pairs(np.arange(len(self.ends)), degree[self.ends[:, 0]], degree[self.ends[:, 1]])
        b, c = self.ends[bond].T
        a, d = other[first[b] + i], other[first[c] + j]
        good = (a != c) & (d != b) & (a != d) & (self.atoms[np.stack([a, b, c, d])] > 1).all(0)
        four = np.stack([a, b, c, d])[:, good]
        middle = np.sort(self.atoms[four[1:3]], axis=0)
        return _sorted(np.stack([middle[0], self.orders[bond[good]], middle[1]]), _torsion(*self.positions[four]))


def _pairs(owner: np.ndarray, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All (owner, i, j) with i below ``left`` and j below ``right`` of each owner."""
    count = left * right
    which = np.repeat(np.arange(len(owner)), count)
    number = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    return owner[which], number // right[which], number % right[which]


def _angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    u, v = a - b, c - b
    across = np.linalg.norm(np.cross(u, v), axis=-1)
    return np.degrees(np.arctan2(across, (u * v).sum(-1)))


def _torsion(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    left, axis, right = b - a, c - b, d - c
    m, n = np.cross(left, axis), np.cross(axis, right)
    sine = (m * right).sum(-1) * np.linalg.norm(axis, axis=-1)
    return np.abs(np.degrees(np.arctan2(sine, (m * n).sum(-1))))


def _sorted(kinds: np.ndarray, values: np.ndarray) -> dict[Kind, np.ndarray]:
    """Values (n,) by their kinds (k, n)."""
    if not values.size:
        return {}
    names, inverse = np.unique(kinds, axis=1, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    cuts = np.searchsorted(inverse[order], np.arange(1, names.shape[1]))
    return {tuple(int(x) for x in k): v for k, v in zip(names.T, np.split(values[order], cuts), strict=True)}


def label(kind: Kind) -> str:
    """A kind of bond as text, such as C=O; hydrogen is last."""
    low, order, high = kind if kind[0] != 1 else kind[::-1]
    return f"{symbol(low)}{LINKS[order]}{symbol(high)}"


# ------------------------------------------------------------------------------------------------------- comparisons


def shared(x: Values, y: Values) -> dict[Kind, float]:
    """The kinds that are frequent enough in both sets, each with its share in the second."""
    counts = {k: len(v) for k, v in y.items() if len(v) >= ENOUGH and len(x.get(k, ())) >= ENOUGH}
    total = sum(counts.values())
    return {k: n / total for k, n in counts.items()}


def wasserstein(x: Values, y: Values) -> float:
    """Mean Wasserstein-1 distance over the shared kinds; NaN if there is none."""
    weights = shared(x, y)
    pairs = {k: (torch.from_numpy(x[k]), torch.from_numpy(y[k])) for k in weights}
    return sum(w * line_wasserstein(*pairs[k]) for k, w in weights.items()) if weights else math.nan


def divergence(x: Values, y: Values, what: str) -> float:
    """Mean Jensen-Shannon divergence in bits of the histograms of the shared kinds; NaN if there is none."""
    low, high, width = BINS[what]
    edges = np.linspace(low, high, round((high - low) / width) + 1)
    weights = shared(x, y)
    counts = {k: [torch.from_numpy(np.histogram(v[k].clip(low, high), edges)[0]) for v in (x, y)] for k in weights}
    return sum(w * jensen_shannon(*counts[k]) for k, w in weights.items()) if weights else math.nan


def mean_errors(x: Values, y: Values, least: float = 0.01) -> dict[Kind, float]:
    """The error of the mean of each shared kind, for kinds that make up at least this share of the second set."""
    return {k: float(x[k].mean() - y[k].mean()) for k, w in shared(x, y).items() if w >= least}


def total_variation(x: Sequence[int] | np.ndarray, y: Sequence[int] | np.ndarray) -> float:
    """Half the absolute difference of the shares of each value; NaN if one is empty."""
    if not len(x) or not len(y):
        return math.nan
    kinds = np.union1d(x, y)
    p, q = (np.array([(np.asarray(v) == k).mean() for k in kinds]) for v in (x, y))
    return float(0.5 * np.abs(p - q).sum())
