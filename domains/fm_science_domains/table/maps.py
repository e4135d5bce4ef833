"""Models of rows that jump from noise to data: normalising flows of planar, affine coupling and spline layers, and the
optimal transport map that is the gradient of a convex network.

They stand in the place of the network, and need whole rows of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from fm_science.errors import OptionError, UserError
from fm_science.flow import Flow
from fm_science.networks import ConvexMap, PlanarMap, TransportMap, ZukoMap
from fm_science.objectives import KantorovichDual, MaximumLikelihood
from fm_science.objectives import Objective as Loss
from fm_science.state import Context, State

from .conditional import HeldCells
from .encoding import Encoding

if TYPE_CHECKING:
    from .recipe import Network, Objective

MAPS = ("normalising_flow", "icnn")  #: kinds of objectives whose network is a map
TRANSFORMS = ("spline", "realnvp", "planar")
WIDTH = 64  # hidden features where nothing is said


@dataclass(frozen=True)
class WholeRows(Loss):
    """An objective on rows none of whose cells is missing or given.

    Raises:
        UserError: when called, where cells of a batch are missing.
    """

    objective: Loss
    disturb: HeldCells

    @property
    def independent(self) -> bool:
        return self.objective.independent

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        whole = context.cond["observed"].bool().all(1)
        if not bool(whole.all()):
            raise UserError(
                f"this objective.kind needs whole rows, and {int((~whole).sum())} of {len(whole)} in a batch have "
                "empty cells: leave them or their columns out, or take objective.kind=flow_matching"
            )
        assert isinstance(x1, dict)
        rows, _ = self.disturb(x1, context)
        return self.objective(flow, rows, context)


def network(o: Network, encoding: Encoding, kind: str) -> TransportMap:
    """The map of a row. Raises OptionError where a row has anything but numbers to learn."""
    if encoding.others or encoding.condition is not None:
        raise OptionError(f"objective.kind={kind} needs rows of numbers alone, and no data.condition")
    features = len(encoding.linear)
    if kind == "icnn":
        return ConvexMap(features, o.width or WIDTH, o.layers)
    if o.transform == "planar":
        return PlanarMap(features, o.layers)
    return ZukoMap(o.transform, features, o.layers, o.width or WIDTH)


def objective(o: Objective, encoding: Encoding, blur: float) -> WholeRows:
    """The exact likelihood, or the dual of optimal transport."""
    trained = KantorovichDual(o.inner) if o.kind == "icnn" else MaximumLikelihood()
    return WholeRows(trained, HeldCells(encoding, 0.0, blur))
