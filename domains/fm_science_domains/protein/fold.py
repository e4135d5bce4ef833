"""Comparing folds: TM-score, the most similar chains of a pool, and groups of similar chains.

The TM-score (Zhang & Skolnick 2004, 2005) is in (0, 1]; above 0.5 two chains have the same fold, unrelated chains of
this size have about 0.3. It is always normalised by the shorter chain here. One comparison of hundred residues takes
about 10 ms, so searches compare only with those chains of a pool whose distance matrix, reduced to a fixed size, is
most similar; the result is a lower bound of the true maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .geometry import SHORTEST
from .structure import Backbone

STRETCH = 20.0  # angstrom per residue; a chain has 3.8 at most
POINTS = 16  # size of the reduced distance matrix


def comparable(backbone: Backbone) -> bool:
    """Whether a chain can be aligned at all: long enough, finite, and not too extended (alignment would not end)."""
    ca = backbone.ca
    return len(backbone) >= SHORTEST and bool((ca - ca.mean(0)).abs().max() < STRETCH * len(backbone))


def tm_score(a: Backbone, b: Backbone) -> float:
    """TM-score of two chains by sequence-independent alignment, normalised by the shorter; NaN if not comparable."""
    if not (comparable(a) and comparable(b)):
        return float("nan")
    try:
        from tmtools import tm_align
    except ImportError as error:
        raise ImportError("comparing folds needs tmtools: pip install 'fm-science[protein]'") from error
    x, y = (chain.ca.detach().cpu().double().numpy() for chain in (a, b))
    result = tm_align(x, y, "A" * len(a), "A" * len(b))
    return float(result.tm_norm_chain1 if len(a) <= len(b) else result.tm_norm_chain2)


@lru_cache(maxsize=8192)
def shape(backbone: Backbone) -> Tensor:
    """Distances in angstrom between points at equal steps along the CA trace: (POINTS (POINTS - 1) / 2,)."""
    ca = backbone.ca.detach().cpu().double()
    points = torch.nn.functional.interpolate(ca.T[None], size=POINTS, mode="linear", align_corners=True)[0].T
    return torch.pdist(points)


def shapes(pool: Sequence[Backbone]) -> Tensor:
    return torch.stack([shape(b) for b in pool])


def nearest(
    sample: Backbone, pool: Sequence[Backbone], candidates: int, features: Tensor | None = None, others: bool = False
) -> float:
    """The largest TM-score to any of the ``candidates`` chains of the pool that look most similar.

    features: ``shapes(pool)``, to compute them once for many samples; others: leave out the sample itself if it is in
    the pool. NaN when nothing can be compared.
    """
    if not comparable(sample) or not pool:
        return float("nan")
    distance = torch.linalg.vector_norm((shapes(pool) if features is None else features) - shape(sample), dim=-1)
    lengths = torch.tensor([len(b) for b in pool])
    distance[(lengths < 0.7 * len(sample)) | (lengths > len(sample) / 0.7)] += 1e6  # only if no others are left
    order = torch.topk(distance.nan_to_num(torch.inf), min(candidates + others, len(pool)), largest=False).indices
    found = [pool[i] for i in order.tolist() if comparable(pool[i]) and not (others and pool[i] is sample)]
    return max((tm_score(sample, b) for b in found[:candidates]), default=float("nan"))


def similarity(samples: Sequence[Backbone], pairs: int) -> Tensor:
    """TM-scores (M, M) of the first M samples, as many as give at most ``pairs`` pairs; the diagonal is one."""
    chosen = [b for b in samples if comparable(b)]
    while len(chosen) > 1 and len(chosen) * (len(chosen) - 1) // 2 > pairs:
        chosen = chosen[:-1]
    matrix = torch.eye(len(chosen), dtype=torch.float64)
    for i, a in enumerate(chosen):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = tm_score(a, chosen[j])
    return matrix


def clusters(similarity: Tensor, threshold: float = 0.5) -> int:
    """Number of groups when every pair (M, M) above the threshold is joined (single linkage)."""
    joined = (similarity > threshold) | torch.eye(len(similarity), dtype=torch.bool)
    labels = torch.arange(len(similarity))
    for _ in range(len(similarity)):
        smaller = torch.where(joined, labels, len(labels)).amin(1) if len(labels) else labels
        if torch.equal(smaller, labels):
            break
        labels = smaller
    return len(labels.unique())
