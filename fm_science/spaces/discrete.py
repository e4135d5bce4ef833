"""Classes: atom types, residues, bonds.

A class is a corner of the simplex, and a move is a random jump. A point is a one-hot vector; a tangent is a column of
jump rates; ``exp(x, u)`` draws the class from the probabilities x + u. The laws of manifolds then hold almost surely,
and the bridge exp(x0, k log(x0, x1)) is the mixture path of discrete flows: it keeps x0 with probability 1 - k and else
is x1 (Campbell et al. 2024; Gat et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.declarations import derived
from fm_science.spaces.base import BoundLeaf, Leaf, total
from fm_science.state import Context


def one_hot(index: Tensor, classes: int, like: Tensor) -> Tensor:
    """Class numbers ``(...)`` to corners ``(..., classes)`` in the dtype of ``like``."""
    return torch.nn.functional.one_hot(index, classes).to(like.dtype)


def race(weight: Tensor) -> Tensor:
    """Class numbers drawn with probabilities proportional to ``weight`` ``(..., classes)``, from torch's generator:
    each class has an exponential waiting time, and the shortest is chosen."""
    clock = torch.empty_like(weight).exponential_().clamp_min(torch.finfo(weight.dtype).tiny)
    return (weight / clock).argmax(-1)


@dataclass(frozen=True)
class Categorical(Leaf):
    """One of ``classes`` classes on each site, as a one-hot vector. Tangents are rates: a sum of zero, and no rate
    below zero except that of the present class. One-hot vectors cost memory beyond some hundred classes.

    On edges the graph is undirected: both triangles have the same class, the diagonal is unused (class 0), and each
    pair counts once. The squared distance is the number of sites that differ: a cost for couplings, not a metric of
    geodesics.

    Args:
        classes: number of classes, a mask class included.
        on: where the sites are: "nodes", "edges" or "graph".
    """

    classes: int
    on: str = "nodes"
    smooth = False
    dimension = 1  # one choice per site
    point = "one-hot vectors, no soft labels: torch.nn.functional.one_hot(numbers, classes).float()"

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"Categorical(classes={self.classes}) needs at least two classes.")

    @derived
    def event(self) -> tuple[int, ...]:
        return (self.classes,)

    def origin(self, like: Tensor) -> Tensor:
        return torch.eye(1, self.classes, dtype=like.dtype, device=like.device)[0]

    def dot(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return 0.5 * (u * v).sum(-1)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return one_hot(race((x + u).clamp_min(0)), self.classes, x)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def project(self, x: Tensor) -> Tensor:
        return one_hot(x.argmax(-1), self.classes, x)

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        arrivals = u.clamp_min(0) * (1 - x)
        return arrivals - arrivals.sum(-1, keepdim=True) * x

    def gaussian(self, x: Tensor) -> Tensor:
        raise TypeError(f"{self!r} has no Gaussian tangents: rates cannot diffuse. Use Euler on classes.")

    def gradient(self, x: Tensor, ambient_grad: Tensor) -> Tensor:
        raise TypeError(f"{self!r} has no gradients: functions of classes have no slope. Use a smooth space.")

    def bind(self, context: Context) -> BoundLeaf:
        kind = BoundEdges if self.on == "edges" else BoundLeaf
        return kind(self, context.sites(self.on), context.frozen(self.on), context.known)


class BoundEdges(BoundLeaf):
    """Classes on the edges of undirected graphs: points and tangents are symmetric in the two ends."""

    @derived
    def counted_mask(self) -> Tensor:
        return self.free_mask.triu(1)

    def symmetrise(self, x: Tensor) -> Tensor:
        return 0.5 * (x + x.transpose(1, 2))

    def _upper(self, x: Tensor) -> Tensor:
        """Both triangles from the upper one."""
        upper = torch.ones(x.shape[1:3], dtype=torch.bool, device=x.device).triu()
        return torch.where(upper[..., None], x, x.transpose(1, 2))

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return self.apply_constraints(self._upper(self.leaf.exp(x, self.mask_tangent(self.symmetrise(u)))))

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return super().log(x, self.symmetrise(y))

    def project(self, x: Tensor) -> Tensor:
        return super().project(self.symmetrise(x))

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return super().tangent(x, self.symmetrise(u))

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return total(torch.where(self.counted_mask, self.leaf.dot(x, u, v), 0.0))
