"""How samples are judged: by distances over the ground, between them and the events that were held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fm_science import option

from .data import ground, vectors
from .files import Event


@dataclass(frozen=True)
class Metrics:
    """How samples and the flow are judged."""

    most: int = option(2000, "events of each row that distances are measured with, at most", low=10)
    near: float = option(100.0, "how near an event is a neighbour", unit="km", low=0)
    steps: int = option(60, "steps of the solver for likelihoods, shrinking towards the data", low=1)
    map_degrees: float = option(4.0, "mesh of the map of the density; 0: no map", unit="degrees", low=0, high=30)


def distances(samples: Sequence[Event], reference: Sequence[Event], o: Metrics) -> dict[str, float]:
    """The energy distance 2 E d(x, y) - E d(x, x') - E d(y, y') of both laws in km (Székely & Rizzo 2013; zero where
    they agree, up to chance), and the share of samples with an event of the reference near by, and of events with a
    sample near by. NaN where there are no two events to compare, and for the reference itself."""
    if len(samples) < 2 or len(reference) < 2 or samples == reference:
        return dict.fromkeys(("energy_km", "near_event", "near_sample"), math.nan)
    x, y = (vectors(list(row)[: o.most]) for row in (samples, reference))
    between = ground(x, y)
    within = [float(ground(z, z).sum() / (len(z) * (len(z) - 1))) for z in (x, y)]
    return {
        "energy_km": 2 * float(between.mean()) - sum(within),
        "near_event": float((between.amin(1) <= o.near).double().mean()),
        "near_sample": float((between.amin(0) <= o.near).double().mean()),
    }
