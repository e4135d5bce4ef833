"""Semidiscrete transport: one assignment of all noise to all data, not of batch to batch.

The noise has a density and the data are n points. The optimal map sends x0 to the point with the least
c(x0, x1_j) - psi_j, where the potentials psi are the maximum of a concave function (Genevay et al. 2016). Once they are
known, pairing costs one look-up, has no bias from small batches, and leaves the noise exactly as it was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fm_science.couplings.base import Coupling
from fm_science.couplings.costs import cross
from fm_science.couplings.potentials import Fit, evaluate_potentials, fit_potentials
from fm_science.priors import Prior, cast
from fm_science.seeds import seeded
from fm_science.spaces import Space
from fm_science.state import Context, State, leaves, take, tree_map


class Semidiscrete(Coupling):
    """Pairs noise with the datum in whose cell it lies; the batch's own data are replaced, together with their context.

    The noise is kept as it was drawn. Datum j is drawn with the mass P_j of its cell, which is 1 / n only as far as the
    fit goes: :meth:`fit` measures that and raises when it is poor. Classes are refused: their distances tie.

    Args:
        data: all data, a state of n samples.
        context: their masks and conditions, which move with them. All samples must have the same sites.
        label: a condition with whole numbers: there is one transport for each label, and noise of a batch goes to data
            of the label it came with. Without it noise goes to all data.
        reweigh: whether pairs weigh 1 / (n P_j), which corrects what is left of the error.
    """

    def __init__(self, data: State, context: Context, label: str | None = None, reweigh: bool = False) -> None:
        if bool((context.mask != context.mask[:1]).any()):
            raise ValueError("Semidiscrete needs data with the same sites: noise of one size cannot reach another.")
        if context.free is not None:
            raise ValueError("Semidiscrete cannot hold frozen sites: each datum would need noise of its own.")
        if label is not None and label not in context.cond:
            raise ValueError(f"the data carry no condition {label!r}; they have {sorted(context.cond)}.")
        self.data, self.context, self.label, self.reweigh = data, context, label, reweigh
        self.psi = torch.zeros(context.size, dtype=torch.float64)
        self.mass: Tensor | None = None

    @property
    def labels(self) -> Tensor:
        """The label of each datum, ``(n,)``."""
        return self.context.cond[self.label] if self.label else torch.zeros(self.context.size, dtype=torch.long)

    def fit(
        self, space: Space, prior: Prior, iterations: int = 4000, batch: int = 256, step: float = 3.0,
        tolerance: float = 0.1, probes: int | None = None, seed: int = 0,
    ) -> Mapping[int, Fit]:  # fmt: skip
        """Find the potentials by averaged stochastic gradient ascent (Genevay et al. 2016, algorithm 2).

        Args:
            space: of the data, not bound.
            prior: of the noise.
            iterations, batch: how many steps, and draws of noise a step.
            step: length of the first steps in units of the mean cost; they shrink a thousandfold.
            tolerance: largest total variation, beyond what so many probes show of perfect potentials.
            probes: draws of fresh noise for the report; ``None``: 100 a datum, at least 10,000.
            seed: of the noise; torch's generator is left as it was.

        Returns:
            The quality of the fit for each label (0 without labels).

        Raises:
            TypeError: on spaces with classes.
            RuntimeError: when the total variation stays above ``tolerance``.
        """
        if not space.smooth:
            raise TypeError(f"Semidiscrete transport needs a smooth space: on {space!r} distances tie.")
        reports, self.mass = {}, torch.zeros_like(self.psi)
        with seeded(seed, self.context.mask.device), torch.no_grad():
            for value, index in self._cells():
                costs = self._sampler(space, prior, index)
                self.psi[index] = fit_potentials(costs, len(index), iterations, batch, step)
                draws = probes or max(10_000, 100 * len(index))
                self.mass[index], reports[value] = evaluate_potentials(costs, self.psi[index], draws, batch)
        for value, report in reports.items():
            if report.variation - report.floor > tolerance:
                raise RuntimeError(
                    f"the potentials{f' of {self.label} {value}' if self.label else ''} are off: {report}. "
                    f"Tolerated are {tolerance} above the floor. Raise iterations ({iterations}), change step ({step})."
                )
        return reports

    def _cells(self) -> list[tuple[int, Tensor]]:
        """Each label with its data."""
        return [(int(value), (self.labels == value).nonzero()[:, 0]) for value in self.labels.unique()]

    def _sampler(self, space: Space, prior: Prior, index: Tensor) -> Callable[[int], Tensor]:
        """``m -> (m, n)``: the costs of fresh noise to the data ``index``."""

        data, context = take(self.data, index), self.context.take(index)
        bound = space.bind(context)

        def costs(m: int) -> Tensor:
            sites = context.take(torch.randint(len(index), (m,)))
            noise = cast(space.bind(sites), prior.sample(space, sites), leaves(data)[0])
            return cross(bound, noise, data, context).double()

        return costs

    @torch.no_grad()
    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        if self.mass is None:
            raise RuntimeError("Semidiscrete has no potentials yet: call fit(space, prior) or load_state_dict(...).")
        wanted = torch.zeros(context.size) if self.label is None else context.cond[self.label].to(self.labels.device)
        chosen = torch.full((context.size,), -1)
        for value, index in self._cells():
            rows = (wanted == value).nonzero()[:, 0]
            if len(rows):
                noise = _like(take(x0, rows.to(leaves(x0)[0].device)), self.data)
                cell = self.context.take(index)
                price = cross(space.bind(cell), noise, take(self.data, index), cell).double()
                chosen[rows] = index[(price - self.psi[index]).argmin(1)]
        if bool((chosen < 0).any()):
            raise ValueError(f"the data hold nothing of {self.label}={wanted[chosen < 0].unique().tolist()}.")
        moved = self.context.take(chosen)
        if self.reweigh:
            moved = replace(moved, cond={**moved.cond, "weight": self._weights()[chosen].float()})
        return x0, _like(take(self.data, chosen), x1), moved.to(leaves(x1)[0].device)

    def _weights(self) -> Tensor:
        """1 / (n P_j) for each datum; rare data are lifted tenfold at most."""
        weights = torch.ones_like(self.psi)
        if self.mass is None:
            return weights
        for _, index in self._cells():
            weights[index] = 1 / (len(index) * self.mass[index]).clamp_min(0.1)
        return weights

    def state_dict(self) -> dict[str, Tensor]:
        """What was fitted, as tensors: save it with ``torch.save``."""
        return {"psi": self.psi, "mass": torch.zeros(0) if self.mass is None else self.mass}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Fill in what :meth:`state_dict` gave. Raises ValueError when it was fitted to other data."""
        if len(state["psi"]) != len(self.psi):
            raise ValueError(f"these potentials are of {len(state['psi'])} data, and there are {len(self.psi)}.")
        self.psi, self.mass = state["psi"].double(), state["mass"].double() if len(state["mass"]) else None


def _like(x: State, like: State) -> State:
    """``x`` in the dtype and on the device of ``like``."""
    first = leaves(like)[0]
    return tree_map(lambda v: v.to(first), x)
