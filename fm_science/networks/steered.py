"""Steering: bend a trained flow towards what was observed, by the gradient of a log-likelihood.

If h(x, t) is the probability of the observation given x_t = x, the flow of the posterior has the score of the old one
plus grad log h (Doob's transform). On the paths x_t = alpha x1 + sigma x0 that moves the predicted datum by
sigma² / alpha grad log h, and the raw output, whatever it means, by as much as it takes for that. Where h is not known,
the likelihood of the predicted datum stands for it (Chung et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fm_science.networks.base import NetworkFunction, WrappedNetwork
from fm_science.priors import Normal
from fm_science.state import Context, State, add, expand_like, leaves, map_leaves, tree_map, zip_leaves

if TYPE_CHECKING:
    from fm_science.paths import Path
    from fm_science.paths.affine import AffinePath

LAST = 1 - 1e-6  #: at t = 1 the shift is a limit: zero over zero


class ScoreGuided(WrappedNetwork):
    """A network whose flow ends in the posterior instead of the prior law of the data.

    The score needs noise that is standard normal (times the prior's std) and was independent of the data in training;
    a flow trained with ``Transport`` must not be steered. Works on linear spaces; gradients are switched on inside, so
    ``torch.no_grad`` around it is fine and ``torch.inference_mode`` is not.

    Args:
        network: the trained network.
        path: of the flow, not bound.
        log_likelihood: ``(x1hat) -> (B,)``, the log-likelihood of the observation given a datum, up to a constant. It
            is taken at the predicted datum: exact for what is certain, else an approximation that is too sure of
            itself while x1hat is still vague.
        doob: with true, ``log_likelihood`` is ``(x, t) -> (B,)``, log h itself, and the posterior is exact.
        std: standard deviation of the prior.
        start: earlier times are taken for this one: at t = 0 x says nothing of the datum, and 1 / alpha is infinite.

    Raises:
        TypeError: on spaces that are not linear, and for interpolants.
    """

    two_times = False  # a jump has no score

    def __init__(
        self, network: NetworkFunction, path: Path, log_likelihood: Callable[..., Tensor], doob: bool = False,
        std: float = 1.0, start: float = 1e-3,
    ) -> None:  # fmt: skip
        super().__init__(network)
        _refuse(path)
        self.path, self.log_likelihood = path, log_likelihood
        self.doob, self.std, self.start = doob, std, start

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        if torch.is_inference_mode_enabled():
            raise RuntimeError("ScoreGuided needs gradients: use torch.no_grad() instead of torch.inference_mode().")
        path = self.path.bind(context)
        late = t.clamp_min(self.start)
        with torch.enable_grad():
            point = tree_map(lambda v: v.detach().requires_grad_(), x)
            raw = self.network(point, late, context)
            seen = (point, late) if self.doob else (path.endpoint(raw, point, late),)
            value = self.log_likelihood(*seen).sum()
            slopes = iter(torch.autograd.grad(value, leaves(point), materialize_grads=True))
        gradient = path.space.tangent(x, tree_map(lambda v: next(slopes), point))
        return add(tree_map(lambda v: v.detach(), raw), _shift(path, gradient, late, self.std))


def _refuse(path: Path) -> None:
    """Raise TypeError for parts that cannot be steered."""
    for (part,) in zip_leaves(path):
        if not part.affine:
            raise TypeError(
                f"ScoreGuided moves the score of the noise x0 of Geodesic and Gaussian paths on linear spaces, not of "
                f"{part!r}. Guide it with Guided(network, scale), or weigh samples by their likelihood."
            )


def _shift(path: Path, gradient: State, t: Tensor, std: float) -> State:
    """What the gradient of log h adds to the raw output: the endpoint moves by sigma² / alpha times it."""
    t = t.clamp_max(LAST)

    def shift(part: AffinePath, g: Tensor) -> Tensor:
        part = replace(part, prior=Normal(std))
        alpha, sigma = part.weights(t)
        return expand_like((std * sigma).square() / (alpha * part.predicts.endpoint_gain(part, t)), g) * g

    return map_leaves(shift, path, gradient)
