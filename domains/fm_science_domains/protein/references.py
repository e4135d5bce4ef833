"""Chains to compare samples with: real ones held out from training, the training set itself, and a random coil.

The training set is the best of any sampler, and the result of memorisation. The coil passes every local test without
having a fold.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from . import chains
from .ramachandran import reference
from .structure import Backbone, grow


def references(
    samples: Sequence[Backbone],
    train: Sequence[Backbone] | None = None,
    validation: Sequence[Backbone] | None = None,
    seed: int = 0,
) -> dict[str, list[Backbone]]:
    """Rows to compare with the samples, each with as many chains and (nearly) the same lengths.

    Held-out natives and training chains are real chains of the nearest length, without repetition unless there are too
    few; the random coil has the exact lengths. train, validation: the chains to draw from; none: the shipped ones.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = [len(b) for b in samples]
    return {
        "held-out natives": matched(lengths, chains.backbones(True) if validation is None else validation, generator),
        "resampled training set": matched(lengths, chains.backbones(False) if train is None else train, generator),
        "random coil": random_coil(lengths, generator),
    }


def matched(lengths: Sequence[int], pool: Sequence[Backbone], generator: torch.Generator) -> list[Backbone]:
    """A random choice of chains from the pool whose lengths are, in sum, nearest to the requested ones."""
    from scipy.optimize import linear_sum_assignment

    if not lengths or not pool:
        return []
    copies = -(-len(lengths) // len(pool))
    have = torch.tensor([len(b) for b in pool], dtype=torch.float64).repeat(copies)
    cost = (torch.tensor(lengths, dtype=torch.float64)[:, None] - have).abs()
    cost = cost + 0.5 * torch.rand(len(have), generator=generator, dtype=torch.float64)  # ties are broken at random
    return [pool[i % len(pool)] for i in linear_sum_assignment(cost.numpy())[1]]


def random_coil(lengths: Sequence[int], generator: torch.Generator) -> list[Backbone]:
    """Chains with ideal bonds and angles, omega 180 and independent (phi, psi) from the native density: no fold."""
    if not lengths:
        return []
    longest = max(lengths)
    drawn = reference().sample(len(lengths) * longest, generator).reshape(len(lengths), longest, 2)
    coords = grow(*drawn.unbind(-1))
    cut = (x[:n] - x[:n, 1].mean(0) for x, n in zip(coords, lengths, strict=True))
    return [Backbone(x.float(), None, f"coil_{i:03d}") for i, x in enumerate(cut)]
