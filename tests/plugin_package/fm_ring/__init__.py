from __future__ import annotations
import dataclasses
from fm_science.domain import option, group
@dataclasses.dataclass(frozen=True)
class Data:
    """A ring."""
    points: int = option(256, "how many points to learn from", low=2)
    radius: float = option(2.0, "radius of the ring", unit="arbitrary", low=0.0)
    batch: int = option(32, "points a batch", low=1)
@dataclasses.dataclass(frozen=True)
class Network:
    """MLP."""
    width: int = option(32, "channels", low=1)
OPTIONS = {"data": Data, "network": Network}
def build(data=None, network=None):
    return (group(Data, data), group(Network, network))
