"""Particle systems with known equilibrium: an energy with the reference values that samples must agree with.

The reference values are means over long simulations, each with its standard error: energy, and log Z, the logarithm of
the integral of exp(-U) over centred clouds (with an orthonormal basis). Published likelihoods of these systems often
leave out the normaliser of the Gaussian prior, (N - 1) D / 2 log 2 pi; both conventions are available.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from fm_science import trust
from fm_science.errors import UserError, nearest

from .energies import DoubleWell, Energy, LennardJones, force

Fact = tuple[float, float]  # a mean and its standard error


@dataclass(frozen=True)
class System:
    """Points under an energy.

    Args:
        name: its name in files and tables.
        energy: ``(B, N, D) -> (B,)`` in kT.
        points: N.
        dim: D.
        mean_energy, log_z: known values at equilibrium; ``None``: not known.
        width: standard deviation of the initial Gaussian of sampling, about the size of the cloud.
        clouds, temperatures: the default work of the reference sampler: clouds per population, and steps of cooling.
        bounded: whether log Z is bounded from above too, by heating the samples again.
        code: a digest of the file of a user's own energy.
    """

    name: str
    energy: Energy
    points: int
    dim: int
    mean_energy: Fact | None = None
    log_z: Fact | None = None
    width: float = 2.0
    clouds: int = 128
    temperatures: int = 300
    bounded: bool = False
    code: str = ""

    @property
    def freedom(self) -> int:
        """Degrees of freedom of centred clouds, (N - 1) D."""
        return (self.points - 1) * self.dim

    @property
    def normaliser(self) -> float:
        """The difference of the negative log-likelihood in the convention without the prior's normaliser, in nats."""
        return 0.5 * self.freedom * math.log(2 * math.pi)


def dw4() -> System:
    """Four particles in the plane with two preferred distances."""
    return System("dw4", DoubleWell(), 4, 2, (-22.551, 0.006), (29.672, 0.005), 2.5)


def lj13(factor: float = 1.0) -> System:
    """Thirteen Lennard-Jones particles in a trap; reference values are known if ordered pairs are counted (factor
    1)."""
    known = factor == 1
    facts: tuple[Fact | None, Fact | None] = ((-43.06, 0.06), (59.89, 0.15)) if known else (None, None)
    return System(f"lj13-factor{factor:g}", LennardJones(13, factor), 13, 3, *facts, width=1.0, temperatures=600)


def lj55(factor: float = 1.0) -> System:
    """Fifty-five Lennard-Jones particles in a trap. No exact values are known: samples are tested by the virial, and by
    bounds of log Z from both sides."""
    return System(
        f"lj55-factor{factor:g}", LennardJones(55, factor), 55, 3, width=1.0, clouds=8, temperatures=1000, bounded=True
    )


KNOWN = ("dw4", "lj13", "lj55", "shapes")


def named(source: str, factor: float, points: int, dim: int) -> System | None:
    """The system of a source: ``dw4``, ``lj13``, or the user's own ``module:energy``; ``None`` for a file.

    Raises:
        UserError: for unknown systems, and energies that cannot be imported or used.
    """
    if source == "dw4":
        return dw4()
    if source == "lj13":
        return lj13(factor)
    if source == "lj55":
        return lj55(factor)
    if Path(source).exists():
        return None
    if ":" in source:
        energy = imported(source)
        x = torch.randn(64, points, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        probe(energy, System.width * x, f"data.source={source}")
        return System(source.replace(":", "."), energy, points, dim, code=_digest(source))
    if "." not in source and "/" not in source:
        raise UserError(f"unknown data.source={source}; {nearest(source, KNOWN)}, or name a file or module:energy")
    return None


def imported(place: str) -> Energy:
    """The callable at ``module:attribute``, the module installed or a file in the working folder. Raises UserError if
    there is none, if the module fails to import, and if an untrusted run names it."""
    module, _, attribute = place.partition(":")
    trust.allow(place)
    if os.getcwd() not in sys.path:  # an installed command does not search there by default
        sys.path.append(os.getcwd())
    try:
        loaded = import_module(module)
    except ImportError as error:
        raise UserError(f"no energy at {place!r}: {error}. Name a function (B, N, D) -> (B,)") from error
    except Exception as error:  # from the user's own code
        raise UserError(f"no energy at {place!r}: {_reason(error)}") from error
    found = getattr(loaded, attribute, None)
    if found is None:
        raise UserError(f"no energy at {place!r}: {module} has no {attribute!r}. Name a function (B, N, D) -> (B,)")
    if not callable(found):
        raise UserError(f"{place!r} is {type(found).__name__}, not a function (B, N, D) -> (B,)")
    return found


def _reason(error: Exception) -> str:
    """An error of a module that was imported, with its file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    last = ([frame for frame in frames if frame.name == "<module>"] or frames)[-1]
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} in {error.filename}, line {error.lineno}: {error.msg}"
    return f"{type(error).__name__} in {last.filename}, line {last.lineno}: {error}"


def probe(energy: Energy, x: Tensor, name: str) -> None:
    """Raise UserError, which names the energy ``name``, unless for clouds ``(B, N, D)`` it gives numbers ``(B,)`` with
    a gradient, finite on one cloud at least (hard walls may forbid the others)."""
    wanted = "An energy must return one number for each cloud, (B, N, D) -> (B,), by operations that torch can follow"
    try:
        u = energy(x.clone().requires_grad_())
        shape = tuple(u.shape)
        u, forces = force(energy, x)
    except Exception as error:  # from the user's own code
        raise UserError(
            f"{name} fails on clouds {tuple(x.shape)}: {type(error).__name__}: {error}. {wanted}"
        ) from error
    if shape != x.shape[:1]:
        raise UserError(f"{name} gives {shape} for clouds {tuple(x.shape)}. {wanted}")
    if not (u.isfinite() & forces.isfinite().flatten(1).all(1)).any():
        raise UserError(f"{name} gives no finite number with a finite gradient on clouds {tuple(x.shape)}. {wanted}")


def _digest(place: str) -> str:
    """The digest of the file of the module at ``module:attribute``; empty if it has none."""
    file = getattr(sys.modules[place.partition(":")[0]], "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
