"""Metrics: numbers that compare decoded objects with a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Metric(Protocol):
    """A callable that compares decoded samples with decoded reference objects."""

    def __call__(self, samples: Sequence[Any], reference: Sequence[Any], /) -> dict[str, float]:
        """Named numbers; NaN if a number is not defined for these samples."""
