"""Spaces: where points are, and how they may move."""

from fm_science.declarations import renamed_names
from fm_science.spaces.base import BoundLeaf as BoundLeaf
from fm_science.spaces.base import Leaf as Leaf
from fm_science.spaces.base import Product as Product
from fm_science.spaces.base import Space as Space
from fm_science.spaces.curved import Hyperbolic as Hyperbolic
from fm_science.spaces.curved import Sphere as Sphere
from fm_science.spaces.curved import Torus as Torus
from fm_science.spaces.discrete import Categorical as Categorical
from fm_science.spaces.flat import Centered as Centered
from fm_science.spaces.flat import Euclidean as Euclidean
from fm_science.spaces.flat import Functions as Functions
from fm_science.spaces.matrices import SPD as SPD
from fm_science.spaces.mesh import Mesh as Mesh
from fm_science.spaces.rotations import SO3 as SO3
from fm_science.spaces.rotations import frames as frames
from fm_science.spaces.spectral import SpectralDistance as SpectralDistance
from fm_science.spaces.spectral import spectral_distance as spectral_distance

__getattr__ = renamed_names(__name__, {"Sites": "BoundLeaf"})
