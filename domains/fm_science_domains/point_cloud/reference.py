"""Reference samples of a particle system, generated here and used only after they have passed known tests.

Many clouds start from a Gaussian and are cooled together to exp(-U): at each of many inverse temperatures b the
distribution is N(x)^(1-b) exp(-b U(x)), clouds are weighted by the change of its density, multiplied or dropped
accordingly, and moved by Hamiltonian Monte Carlo (annealed importance sampling, Neal 2001; with resampling, Del Moral,
Doucet & Jasra 2006). An energy with hard cores may offer softer ones (a method ``softer``), which cooling and heating
use. This gives the weight of each basin, and log Z. At b = 1 the clouds are then moved further, and samples are kept at
intervals. Clouds are in independent populations, so the standard deviation between populations gives a valid standard
error of every measurement.

The samples are accepted when the virial equals the degrees of freedom, and mean energy and log Z equal the known
values, within three standard errors; else an error is raised. If log Z is not known, samples can be heated again: the
weights of heating bound it from above, those of cooling from below (both in the mean of the logarithm), and samples are
accepted only if the bounds agree.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fm_science.errors import UserError

from .energies import Energy, force, virial
from .systems import Fact, System

log = logging.getLogger(__name__)
GAP = 1.0  # nats by which the two bounds of log Z may differ, in addition to their errors
TOLERANCE = 3.0  # allowed deviation in a test, in standard errors
WANTED = 0.8  # acceptance rate to which the step size is adapted


@dataclass(frozen=True)
class Plan:
    """The amount of work for the samples.

    Args:
        populations: independent groups of clouds; standard errors come from their standard deviation.
        clouds: clouds in each.
        temperatures: steps of the cooling.
        leaps: leapfrog steps of one move.
        settle: moves at the end temperature before the first sample is kept.
        gap: moves between samples of one cloud.
        seed: of all random numbers.
    """

    populations: int = 16
    clouds: int = 128
    temperatures: int = 300
    leaps: int = 6
    settle: int = 100
    gap: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Reference:
    """Accepted samples.

    Attributes:
        x: clouds ``(n, N, D)``, centred, in random poses and orders.
        mean_energy, virial, log_z: the measured values, each with its standard error.
        log_z_above: log Z from heating, if it was done.
    """

    x: Tensor
    mean_energy: Fact
    virial: Fact
    log_z: Fact
    log_z_above: Fact | None = None


class _Clouds:
    """All clouds during sampling, ``(P * M, N, D)``, with their energies and forces, at inverse temperature ``b``."""

    def __init__(self, system: System, plan: Plan) -> None:
        self.system, self.plan, self.b = system, plan, 0.0
        self.generator = torch.Generator().manual_seed(plan.seed)
        shape = (plan.populations * plan.clouds, system.points, system.dim)
        self.step = 0.2 * system.width
        self.put(system.width * self.noise(shape))

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        z = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return z - z.mean(1, keepdim=True)

    def put(self, x: Tensor) -> None:
        """Set the positions to ``x``."""
        self.x = x
        self.energy, self.force = force(self.law(self.b), x)

    def law(self, b: float) -> Energy:
        """The energy at inverse temperature ``b``: if it can be softened, its cores harden up to b = 1."""
        softer = getattr(self.system.energy, "softer", None)
        return self.system.energy if softer is None or b == 1 else softer(1 - b**0.5)

    def base(self, x: Tensor) -> Tensor:
        """The energy of the Gaussian at the start, without its normaliser, ``(B,)``."""
        return 0.5 * x.square().sum((1, 2)) / self.system.width**2

    def heat(self, b: float) -> Tensor:
        """Go to inverse temperature ``b``: log of the factor of the density of each cloud, ``(P, M)``."""
        before = self.total(self.x, self.energy)
        if hasattr(self.system.energy, "softer"):
            self.energy, self.force = force(self.law(b), self.x)
        self.b = b
        weight = before - self.total(self.x, self.energy)
        return weight.nan_to_num(-math.inf, -math.inf, -math.inf).reshape(self.plan.populations, -1)

    def reweigh(self, b: float) -> Tensor:
        """Go to inverse temperature ``b``: log of the mean weight of each population ``(P,)``; clouds are resampled
        in proportion to their weights, at evenly spaced quantiles."""
        weight = self.heat(b)
        share, m = weight.softmax(1), self.plan.clouds
        start = torch.rand(len(share), 1, generator=self.generator, dtype=share.dtype)
        quantiles = (start + torch.arange(m, dtype=share.dtype)) / m
        chosen = torch.searchsorted(share.cumsum(1), quantiles).clamp_max(m - 1)
        rows = (chosen + m * torch.arange(len(share))[:, None]).flatten()
        self.x, self.energy, self.force = self.x[rows], self.energy[rows], self.force[rows]
        return weight.logsumexp(1) - math.log(m)

    def move(self, adapt: bool) -> float:
        """One move of every cloud by Hamiltonian Monte Carlo (Duane et al. 1987); the acceptance rate."""
        x, energy, forces, law = self.x, self.energy, self.force, self.law(self.b)
        v = self.noise(tuple(x.shape))
        jitter = 0.8 + 0.4 * torch.rand(len(x), 1, 1, generator=self.generator, dtype=x.dtype)
        h = self.step * jitter
        before = self.total(x, energy) + 0.5 * v.square().sum((1, 2))
        y, e, f = x, energy, forces
        v = v + 0.5 * h * self.pull(y, f)
        for k in range(self.plan.leaps):
            y = y + h * v
            e, f = force(law, y)
            v = v + (1.0 if k < self.plan.leaps - 1 else 0.5) * h * self.pull(y, f)
        after = self.total(y, e) + 0.5 * v.square().sum((1, 2))
        dice = torch.rand(len(x), generator=self.generator, dtype=x.dtype).log()
        taken = dice < before - after  # false if the energy is not a number
        self.x, self.force = (torch.where(taken[:, None, None], a, b) for a, b in ((y, x), (f, forces)))
        self.energy = torch.where(taken, e, energy)
        rate = taken.double().mean().item()
        if adapt:
            self.step *= math.exp(0.2 * (rate - WANTED))
        return rate

    def total(self, x: Tensor, energy: Tensor) -> Tensor:
        return self.b * energy + (1 - self.b) * self.base(x)

    def pull(self, x: Tensor, forces: Tensor) -> Tensor:
        return self.b * forces - (1 - self.b) * x / self.system.width**2


def sample(system: System, n: int, plan: Plan | None = None) -> Reference:
    """``n`` equilibrium clouds of a system.

    Args:
        system: what to sample; its known values are tested.
        n: how many clouds, over all populations.
        plan: amount of work; default ``Plan()``.

    Raises:
        UserError: when the energy is not finite, or the samples fail a test.
    """
    plan = plan or Plan()
    keeps = -(-n // (plan.populations * plan.clouds))
    total = plan.temperatures * (1 + system.bounded) + plan.settle + keeps * plan.gap
    with _bar(f"sampling {system.name}", total) as advance:
        clouds = _Clouds(system, plan)
        if clouds.energy.shape != clouds.x.shape[:1]:
            raise UserError(f"{system.name} gives energies {tuple(clouds.energy.shape)} for {len(clouds.x)} clouds")
        log_z = _cooled(clouds, advance)
        kept = _kept(clouds, keeps, advance)
        above = _free_energy(_warmed(clouds, advance)) if system.bounded else None
    reference = _measured(system, plan, kept, log_z, clouds.generator, n)
    reference = replace(reference, log_z_above=above)
    verify(system, reference)
    return reference


def _cooled(clouds: _Clouds, advance: Callable[[], None]) -> Tensor:
    """Cool the clouds to b = 1; log Z of each population ``(P,)``."""
    steps = clouds.plan.temperatures
    log_z = torch.full((clouds.plan.populations,), _log_gaussian(clouds.system), dtype=torch.float64)
    for k in range(1, steps + 1):
        log_z = log_z + clouds.reweigh((k / steps) ** 2)
        clouds.move(adapt=True)
        advance()
    return log_z


def _warmed(clouds: _Clouds, advance: Callable[[], None]) -> Tensor:
    """Heat the clouds back to the Gaussian, with resampling as in cooling; log Z of each population ``(P,)``. Each
    population is a sample of exp(-U), so 1 / Z is estimated without bias, and log Z is too low on average."""
    steps = clouds.plan.temperatures
    log_z = torch.full((clouds.plan.populations,), _log_gaussian(clouds.system), dtype=torch.float64)
    for k in range(steps - 1, -1, -1):
        log_z = log_z - clouds.reweigh((k / steps) ** 2)
        clouds.move(adapt=True)
        advance()
    return log_z


def _log_gaussian(system: System) -> float:
    """log Z of the Gaussian at the start."""
    return system.normaliser + system.freedom * math.log(system.width)


def _free_energy(log_z: Tensor) -> Fact:
    """log Z and its error from heating, of each population ``(P,)``: there the mean of 1 / Z is unbiased."""
    low, error = _log_mean(-log_z)
    return -low, error


def _log_mean(log_z: Tensor) -> Fact:
    """The logarithm of the mean of Z, and its standard error by the delta rule."""
    z = (log_z - log_z.max()).exp()
    return (log_z.max() + z.mean().log()).item(), (z.std() / z.mean() / math.sqrt(len(z))).item()


def _kept(clouds: _Clouds, keeps: int, advance: Callable[[], None]) -> Tensor:
    """Samples at b = 1, ``(keeps, P * M, N, D)``."""
    kept = []
    for k in range(clouds.plan.settle):
        clouds.move(adapt=k < clouds.plan.settle // 2)  # then the step is fixed, and the distribution is exact
        advance()
    for _ in range(keeps):
        for _ in range(clouds.plan.gap):
            clouds.move(adapt=False)
            advance()
        kept.append(clouds.x)
    return torch.stack(kept)


def _measured(system: System, plan: Plan, kept: Tensor, log_z: Tensor, generator: torch.Generator, n: int) -> Reference:
    """The samples in random order, pose and labelling, with their measurements."""
    groups = kept.unflatten(1, (plan.populations, plan.clouds)).transpose(0, 1).flatten(1, 2)  # (P, K, N, D)
    energy = torch.stack([system.energy(g) for g in groups]).mean(1)
    virials = torch.stack([virial(system.energy, g) for g in groups]).mean(1)
    x = groups.flatten(0, 1)
    x = x[torch.randperm(len(x), generator=generator)[:n]]
    order = torch.rand(x.shape[:2], generator=generator).argsort(1)
    x = x.gather(1, order[..., None].expand_as(x)) @ poses(len(x), system.dim, generator)
    return Reference(x.float(), _fact(energy), _fact(virials), _log_mean(log_z))


def poses(n: int, dim: int, generator: torch.Generator) -> Tensor:
    """Random orthogonal matrices, mirror images included, ``(n, dim, dim)``."""
    q, r = torch.linalg.qr(torch.randn(n, dim, dim, generator=generator, dtype=torch.float64))
    return q * r.diagonal(dim1=1, dim2=2).sign()[:, None]


def _fact(values: Tensor) -> Fact:
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def verify(system: System, reference: Reference) -> None:
    """Test samples by what is known of equilibrium. Raises UserError naming each test that fails."""
    known = {
        "virial": (reference.virial, (float(system.freedom), 0.0)),
        "mean energy": (reference.mean_energy, system.mean_energy),
        "log Z": (reference.log_z, system.log_z),
    }
    failed = []
    for name, (found, expected) in known.items():
        if expected is None:
            log.info("%s: %s %.3f ± %.3f, nothing known to compare with", system.name, name, *found)
            continue
        allowed = TOLERANCE * math.hypot(found[1], expected[1])
        if not abs(found[0] - expected[0]) <= allowed:  # also if it is not a number
            failed.append(f"{name} {found[0]:.3f} ± {found[1]:.3f}, expected {expected[0]:.3f} within {allowed:.3f}")
    if reference.log_z_above is not None:
        low, high = reference.log_z, reference.log_z_above
        allowed = GAP + TOLERANCE * math.hypot(low[1], high[1])
        if not abs(high[0] - low[0]) <= allowed:
            failed.append(f"log Z {low[0]:.3f} from below and {high[0]:.3f} from above, more than {allowed:.3f} apart")
    if failed:
        raise UserError(
            f"the samples of {system.name} are not at equilibrium: {'; '.join(failed)}. Give the sampler more work "
            "(data.effort), or check that the energy holds the cloud together."
        )


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar with the time that is left; the value is called after each of ``total`` steps."""
    from rich.progress import Progress

    with Progress(transient=True, disable=not sys.stdout.isatty()) as shown:
        task = shown.add_task(label, total=total)
        yield lambda: shown.advance(task)
