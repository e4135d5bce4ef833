"""Paths: given both ends and a clock, where am I, and what must a network tell me?"""

from fm_science.paths.base import Field as Field
from fm_science.paths.base import Path as Path
from fm_science.paths.bridge import Bridge as Bridge
from fm_science.paths.gaussian import Gaussian as Gaussian
from fm_science.paths.geodesic import Geodesic as Geodesic
from fm_science.paths.interpolant import Interpolant as Interpolant
from fm_science.paths.interpolant import brownian as brownian
from fm_science.paths.product import ProductPath as ProductPath
from fm_science.paths.simulated import Simulated as Simulated
