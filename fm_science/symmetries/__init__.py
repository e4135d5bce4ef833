"""Symmetries: transformations under which the distribution of the data does not change."""

from fm_science.symmetries.base import Symmetry as Symmetry
from fm_science.symmetries.mirrors import Mirrors as Mirrors
from fm_science.symmetries.permutations import Permutations as Permutations
from fm_science.symmetries.rotations import Rotations as Rotations
from fm_science.symmetries.shifts import Shifts as Shifts
from fm_science.symmetries.translations import Translations as Translations
