"""The network: a place seen through waves of several lengths, beside the time.

Events cluster on lines and spots much finer than the globe. The library's PointField shows places through sines and
cosines of random projections, so that fine things are seen from the start.
"""

from __future__ import annotations

from dataclasses import dataclass

from fm_science import PointField, Sphere, UserError, option


@dataclass(frozen=True)
class Options:
    """A perceptron on waves of the coordinates, whose later layers add to what is there."""

    width: int = option(128, "hidden features", low=1)
    layers: int = option(3, "hidden layers", low=1)
    scales: str = option("1,3,8,20,50", "lengths of waves: standard deviations of their numbers, radians a radius")
    waves: int = option(48, "waves of each length", low=1)

    @property
    def frequencies(self) -> tuple[float, ...]:
        """``scales`` as numbers. Raises UserError where they are none."""
        try:
            found = tuple(float(word) for word in self.scales.split(","))
        except ValueError:
            found = ()
        if not found or min(found) <= 0:
            raise UserError(f"network.scales={self.scales!r}: expected positive numbers with commas, such as 1,3,8,20")
        return found


def field(o: Options) -> PointField:
    """The velocity ``(B, 1, 3)`` at places ``(B, 1, 3)`` and times ``(B,)``; the first one is zero."""
    return PointField(Sphere(2), o.width, o.layers, scales=o.frequencies, waves=o.waves)
