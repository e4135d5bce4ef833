"""All rows of the table: flows whose answer is known, and how far the engine is from it.

Everything runs in float64 with networks that are exact (:mod:`tests.oracles.closed_forms`), so what is left is the
error of the engine: of its conversions, solvers and densities; where samples are drawn, also that of their number. One
module a subject; importing them fills the table.
"""

from __future__ import annotations

from importlib import import_module

from tests.oracles.table import ORACLES as ORACLES
from tests.oracles.table import measured as measured

SUBJECTS = (
    "gaussians reflow mixtures manifolds rotations hyperbolic surfaces fields functions classes noise particles "
    "training"
)
for subject in SUBJECTS.split():
    import_module(f"tests.oracles.{subject}")
