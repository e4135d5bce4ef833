"""How far two sets of rows are from each other: distances between laws, a classifier that tries to tell them apart, and
copies. Rows are vectors ``(n, D)`` as :meth:`Encoding.features` makes them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from fm_science.seeds import seeded

from .files import Numbers

CHUNK = 2**24  # distances that are held at a time


def classifier(x: Numbers, y: Numbers, seed: int = 0, steps: int = 300) -> float:
    """How often a small perceptron tells rows that it has not seen apart: the accuracy of the classifier two-sample
    test (Lopez-Paz & Oquab 2017), over two folds of equally many rows of each. A half means that it cannot."""
    n = min(len(x), len(y)) // 2 * 2
    if n < 8:
        return math.nan
    rows = torch.from_numpy(np.concatenate([x[:n], y[:n]])).float().clamp(-20, 20)
    kind = torch.cat([torch.zeros(n), torch.ones(n)])
    fold = (torch.arange(2 * n) % 2).bool()
    with seeded(seed, torch.device("cpu")), torch.enable_grad():
        right = [_taught(rows[part], kind[part], rows[~part], kind[~part], steps) for part in (fold, ~fold)]
    return float(torch.cat(right).float().mean())


def _taught(rows: Tensor, kind: Tensor, others: Tensor, wanted: Tensor, steps: int) -> Tensor:
    """Which of other rows a perceptron that was taught on some puts right."""
    width = 64
    model = nn.Sequential(
        nn.Linear(rows.shape[1], width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
    )
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=1e-2)
    for _ in range(steps):
        some = torch.randint(len(rows), (min(256, len(rows)),))
        loss = nn.functional.binary_cross_entropy_with_logits(model(rows[some])[:, 0], kind[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return (model(others)[:, 0] > 0).float() == wanted


def copies(x: Numbers, train: Numbers) -> dict[str, float]:
    """Whether rows are copies of training rows: the share that is three times as near to one of them as to any other,
    and the median distance to the nearest."""
    from scipy.spatial.distance import cdist  # a k-d tree of equal rows never ends where denormals are flushed to zero

    if len(x) == 0 or len(train) < 3:
        return {"copies": math.nan, "nearest_training_row": math.nan}
    pieces = np.array_split(x, 1 + len(x) * len(train) // CHUNK)
    near = np.concatenate([np.sort(np.partition(cdist(piece, train), 1)[:, :2]) for piece in pieces])
    return {"copies": float((3 * near[:, 0] < near[:, 1]).mean()), "nearest_training_row": float(np.median(near[:, 0]))}
