"""Priors: where the noise comes from.

A prior draws points of a bound space; where it has a density it also gives the logarithm of that density with respect
to the Riemannian volume, over the free real sites only. Every sample comes from torch's generator, on the device of the
context and in torch's default dtype.
"""

from fm_science.priors.base import Data as Data
from fm_science.priors.base import Prior as Prior
from fm_science.priors.base import ProductPrior as ProductPrior
from fm_science.priors.base import cast as cast
from fm_science.priors.classes import Classes as Classes
from fm_science.priors.gaussian import Harmonic as Harmonic
from fm_science.priors.gaussian import Normal as Normal
from fm_science.priors.gaussian import Wrapped as Wrapped
from fm_science.priors.process import RBF as RBF
from fm_science.priors.process import GaussianProcess as GaussianProcess
from fm_science.priors.process import Matern as Matern
from fm_science.priors.process import Periodic as Periodic
from fm_science.priors.rotations import IGSO3 as IGSO3
from fm_science.priors.snapshots import Snapshots as Snapshots
from fm_science.priors.uniform import Uniform as Uniform
