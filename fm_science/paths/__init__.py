"""Paths: given both ends and a clock, where am I, and what must a network tell me?"""

from fm_science.paths.affine import AffinePath as AffinePath
from fm_science.paths.affine import Gaussian as Gaussian
from fm_science.paths.base import Field as Field
from fm_science.paths.base import Path as Path
from fm_science.paths.bridge import Bridge as Bridge
from fm_science.paths.geodesic import Geodesic as Geodesic
from fm_science.paths.geodesic import GeodesicPath as GeodesicPath
from fm_science.paths.geodesic import MixturePath as MixturePath
from fm_science.paths.geodesic import StraightPath as StraightPath
from fm_science.paths.interpolant import Interpolant as Interpolant
from fm_science.paths.interpolant import brownian as brownian
from fm_science.paths.interpolant import bump as bump
from fm_science.paths.piecewise import Piecewise as Piecewise
from fm_science.paths.product import ProductPath as ProductPath
from fm_science.paths.simulated import Simulated as Simulated
