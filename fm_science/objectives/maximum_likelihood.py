"""Maximum likelihood: train the flow as a continuous normalising flow, by the density that it gives to the data.

Each step walks the data back to noise with gradients on, which costs many evaluations of the network and holds all of
them in memory; in return it minimises what density estimation is judged by. It suits small problems, and the last
polish of a network that flow matching has trained: the two share path, prior and network.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fm_science.contract import admit_training, check_output
from fm_science.flow import Flow
from fm_science.likelihood import Divergence, Hutchinson, integrate_log_prob
from fm_science.networks import TransportMap
from fm_science.objectives.action_matching import require_potential
from fm_science.objectives.base import Objective
from fm_science.solvers import RK4, Adjoint, Solver
from fm_science.state import Context, State


@dataclass(frozen=True)
class MaximumLikelihood(Objective):
    """-log p(x1), a degree of freedom, by integrating the divergence (Chen et al. 2018; Grathwohl et al. 2019).

    A :class:`~fm_science.networks.TransportMap` in the place of the network knows its density, and nothing is
    integrated: that is the training of normalising flows (Rezende & Mohamed 2015; Dinh et al. 2017).

    Noise that comes along is not used. The trained field is no longer the mean of a bridge, so the flow has no score.

    Args:
        energy: weight of the kinetic energy, the integral of |velocity|² over time, a degree of freedom: it straightens
            the paths (Finlay et al. 2020).
        jacobian: weight of the squared Frobenius norm of the velocity's derivative, integrated over time, a degree of
            freedom; estimated with one random direction. It keeps the field easy to integrate (Finlay et al. 2020).
        hjb: weight of the residual of the Hamilton-Jacobi-Bellman equation, the integral of |ds/dt + |grad s|² / 2|
            over time, a degree of freedom, for a network that is a :class:`~fm_science.networks.Potential` s. It
            vanishes on straight ways (Onken, Wu Fung, Li & Ruthotto 2021, OT-Flow).
        adjoint: find the gradient by walking back along the adjoint equation (:class:`~fm_science.solvers.Adjoint`;
            Chen et al. 2018) in place of through all steps: memory does not grow with their number, and the gradient
            has the error of the solver. The walk is then that of torchdiffeq's fourth-order rule, not of ``solver``.
        solver: any solver for smooth spaces.
        steps: number of steps or a tensor of times in [0, 1].
        divergence: how the trace is found. Fused attention has no second derivatives: train attention networks under
            ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.

    Raises:
        TypeError: when called, on spaces that are not smooth (with ``adjoint``: not linear), for priors without a
            density, and with ``hjb`` for a network that is no potential.
    """

    energy: float = 0.0
    jacobian: float = 0.0
    hjb: float = 0.0
    adjoint: bool = False
    solver: Solver = RK4()
    steps: int | Tensor = 8
    divergence: Divergence = Hutchinson()
    independent = False
    independent_parts = ()

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        """Named losses ``(B,)``: ``likelihood`` in nats a degree of freedom, and ``energy``, ``jacobian`` and ``hjb``
        where they have a weight."""
        self.record_training(flow)
        x1, _ = admit_training(flow, x1, context)
        path = flow.path.bind(context, flow.prior)
        if isinstance(flow.network, TransportMap):
            return {"likelihood": -self._counted(context, flow.log_prob(x1, context)) / path.space.dimension}

        def predict(x: State, t: Tensor) -> State:
            raw = flow(x, t, context)
            check_output(path, raw)
            return raw

        def rate(x: State, t: Tensor) -> Tensor:
            return require_potential(flow).rates(x, t, context)[1]

        solver = Adjoint(tuple(flow.parameters())) if self.adjoint else self.solver
        walk = integrate_log_prob(
            path, predict, x1, path.source(flow.prior), solver, self.steps, self.divergence, independent=False,
            jacobian=self.jacobian > 0, rate=rate if self.hjb else None,
        )  # fmt: skip
        size = path.space.dimension.clamp_min(1)
        losses = {"likelihood": -walk.logp}
        if self.energy:
            losses["energy"] = self.energy * walk.energy
        if self.jacobian:
            losses["jacobian"] = self.jacobian * walk.jacobian
        if self.hjb:
            losses["hjb"] = self.hjb * walk.hjb
        return {name: self._counted(context, loss) / size for name, loss in losses.items()}

    def _counted(self, context: Context, loss: Tensor) -> Tensor:
        """A loss ``(B,)`` times the weights of the samples, where they have some."""
        return context.cond.get("weight", 1.0) * loss
