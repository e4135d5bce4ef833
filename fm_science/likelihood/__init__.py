"""Densities of flows, and bounds on the probability of classes."""

from fm_science.declarations import renamed_names
from fm_science.likelihood.classes import Estimate as Estimate
from fm_science.likelihood.classes import elbo as elbo
from fm_science.likelihood.classes import elbo_estimate as elbo_estimate
from fm_science.likelihood.classes import elbo_rate as elbo_rate
from fm_science.likelihood.density import DensityResult as DensityResult
from fm_science.likelihood.density import bits_per_dimension as bits_per_dimension
from fm_science.likelihood.density import forward as forward
from fm_science.likelihood.density import integrate_log_prob as integrate_log_prob
from fm_science.likelihood.density import reverse_grid as reverse_grid
from fm_science.likelihood.density import start_before_end as start_before_end
from fm_science.likelihood.divergence import Derivative as Derivative
from fm_science.likelihood.divergence import Divergence as Divergence
from fm_science.likelihood.divergence import ExactTrace as ExactTrace
from fm_science.likelihood.divergence import Hutchinson as Hutchinson
from fm_science.likelihood.divergence import HutchPP as HutchPP
from fm_science.likelihood.divergence import divergence as divergence
from fm_science.likelihood.entropy import entropy_along as entropy_along

__getattr__ = renamed_names(
    __name__,
    {
        "Walk": "DensityResult",
        "backward": "integrate_log_prob",
        "jump_cost": "elbo_rate",
        "set_out": "start_before_end",
    },
)
