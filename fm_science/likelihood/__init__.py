"""Densities of flows, and bounds on the probability of classes."""

from fm_science.likelihood.classes import Estimate as Estimate
from fm_science.likelihood.classes import elbo as elbo
from fm_science.likelihood.classes import elbo_estimate as elbo_estimate
from fm_science.likelihood.classes import jump_cost as jump_cost
from fm_science.likelihood.density import Walk as Walk
from fm_science.likelihood.density import backward as backward
from fm_science.likelihood.density import bits_per_dimension as bits_per_dimension
from fm_science.likelihood.density import forward as forward
from fm_science.likelihood.density import reverse_grid as reverse_grid
from fm_science.likelihood.density import set_out as set_out
from fm_science.likelihood.divergence import Derivative as Derivative
from fm_science.likelihood.divergence import Divergence as Divergence
from fm_science.likelihood.divergence import ExactTrace as ExactTrace
from fm_science.likelihood.divergence import Hutchinson as Hutchinson
from fm_science.likelihood.divergence import HutchPP as HutchPP
from fm_science.likelihood.divergence import divergence as divergence
