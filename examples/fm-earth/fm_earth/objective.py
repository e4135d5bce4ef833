"""What a training step minimises: flow matching at late times, of events that may be blurred a little."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fm_science import BetaTime, Context, Flow, FlowMatching, Space, UniformTime, option


@dataclass(frozen=True)
class Options:
    """Flow matching along great circles from uniform noise."""

    late: float = option(2.0, "times are drawn from Beta(late, 1), so that fine things count; 1: evenly", low=0.1)
    blur: float = option(0.0, "spread by which training moves events; against learning single ones", "degrees", low=0)


@dataclass(frozen=True)
class Blurred(FlowMatching):
    """Flow matching of events that are moved at random in every step, as if each were a small bump.

    Args:
        blur: standard deviation along each of two directions, in radians.
    """

    blur: float = 0.0

    def pairs(self, flow: Flow, x1: Tensor, context: Context, x0: Any = None) -> Any:
        """As in flow matching, with the events moved first."""
        space: Space = flow.path.space.bind(context)
        return super().pairs(flow, space.exp(x1, self.blur * space.gaussian(x1)), context, x0)


def objective(o: Options) -> FlowMatching:
    """The objective of these options."""
    times = UniformTime() if o.late == 1 else BetaTime(o.late, 1.0)
    return Blurred(times=times, blur=math.radians(o.blur)) if o.blur else FlowMatching(times=times)
