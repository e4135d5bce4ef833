"""The quality of a flow as a sampler of exp(-U): likelihood, importance weights, and the paths of its samples.

A flow has the density q of its samples. So every sample x has a weight exp(-U(x)) / q(x), and weighted averages are
exact even for an inaccurate flow, as long as it covers everything (Noé et al. 2019). The effective sample size is the
number of samples that count; the mean weight estimates Z.

Likelihoods are over centred clouds with an orthonormal basis. Papers on these systems often leave out the normaliser
of the Gaussian prior, so each has a second number without it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.solvers import RK4
from fm_science.state import Context

from . import report as pictures
from .energies import Energy
from .systems import System

CHUNK = 256  # clouds integrated together, at most
PAIRS = 2**17  # pairs of points, times directions of the trace, computed at once
Numbers = dict[str, float]


def log_density(flow: Flow, x: Tensor, steps: int = 20) -> Tensor:
    """log q of clouds of equal size ``(n, N, D)`` in nats, ``(n,)``, by Runge-Kutta steps and the exact trace."""
    from rich.progress import track

    pairs = x.shape[1] ** 2 * x[0].numel()  # of one cloud
    chunks = x.to(_device(flow), flow.dtype).split(max(1, min(CHUNK, PAIRS // pairs)))
    with torch.no_grad():
        watched = track(chunks, "densities", transient=True, disable=not sys.stdout.isatty())
        parts = [flow.log_prob(chunk, _context(chunk), RK4(), steps).cpu() for chunk in watched]
    return torch.cat(parts).double()


def likelihood(log_q: Tensor, x: Tensor) -> Numbers:
    """Negative log-likelihood of clouds ``(n, N, D)`` from their log-densities ``(n,)``: mean, standard error, and
    without the prior's normaliser."""
    freedom = (x.shape[1] - 1) * x.shape[2]
    mean, error = -log_q.mean().item(), (log_q.std() / math.sqrt(len(log_q))).item()
    return {"nll": mean, "nll_error": error, "nll_unnormalised": mean - 0.5 * freedom * math.log(2 * math.pi)}


def weights(energy: Energy, x: Tensor, log_q: Tensor) -> Tensor:
    """log exp(-U) / q of clouds, ``(n,)``; clouds with energies that are not numbers have no weight."""
    return (-energy(x.double()) - log_q).nan_to_num(-math.inf, -math.inf, -math.inf)


def effective_size(log_w: Tensor) -> float:
    """The effective share of samples of q: (sum w)² / (n sum w²)  (Kish 1965)."""
    return float((2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()) / len(log_w)


def forward_effective_size(log_w: Tensor) -> float:
    """The same share from samples of exp(-U) / Z, 1 / (E w E 1/w): it detects what the flow does not cover."""
    n = math.log(len(log_w))
    return float((2 * n - log_w.logsumexp(0) - (-log_w).logsumexp(0)).exp())


def log_z(log_w: Tensor) -> tuple[float, float]:
    """log Z from samples of q, and its standard error by the delta rule."""
    size = effective_size(log_w) * len(log_w)
    error = math.sqrt(max(0.0, 1 / size - 1 / len(log_w)))
    return float(log_w.logsumexp(0)) - math.log(len(log_w)), error


def bootstrap(values: Tensor, statistic: Callable[[Tensor], float], rounds: int = 200, seed: int = 0) -> float:
    """The standard error of a statistic of independent values, from resampled sets of them."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(values), (rounds, len(values)), generator=generator)
    return float(torch.tensor([statistic(values[d]) for d in draws]).std())


def ways(flow: Flow, n: int, points: int, steps: int = 20, seed: int = 0) -> tuple[Tensor, Numbers]:
    """``n`` new clouds ``(n, N, D)``, with the mean length of their trajectories from noise and the mean ratio of that
    length to the straight distance (1: straight), both over the coordinates of all points together."""
    found, length, straight = [], [], []
    with torch.no_grad(), torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for count in _counts(n):
            context = Context.full(count, points).to(_device(flow))
            x = first = flow.noise(context)
            way = torch.zeros(count, device=first.device)
            for y in flow.trajectory(x, context, RK4(), steps):
                way, x = way + (y - x).flatten(1).norm(dim=1), y
            found.append(x)
            length.append(way)
            straight.append((x - first).flatten(1).norm(dim=1))
    total, chord = torch.cat(length), torch.cat(straight)
    return torch.cat(found).cpu(), {
        "path_length": total.mean().item(),
        "path_length_error": (total.std() / math.sqrt(n)).item(),
        "straightness": (total / chord).mean().item(),
    }


@dataclass(frozen=True)
class Work:
    """The amount of measurements: new clouds, Runge-Kutta steps, and the seed of the clouds."""

    n: int = 1000
    steps: int = 20
    seed: int = 0


def appraise(
    flow: Flow, energy: Energy | None, held_out: Tensor, work: Work = Work(), system: System | None = None,
    folder: Path | None = None,
) -> Numbers:  # fmt: skip
    """All numbers of a flow on clouds of one size, with the values of a perfect flow.

    Args:
        flow: a trained flow.
        energy: in kT; ``None``: no weights.
        held_out: clouds of the data ``(m, N, D)``, for the likelihood; may be empty.
        work: the amount of measurements.
        system: whose known log Z gives the floor.
        folder: where histograms of energies and distances, unweighted and weighted, are plotted as ``weighted.png``.
    """
    x, numbers = ways(flow, work.n, held_out.shape[1], work.steps, work.seed)
    log_q = log_density(flow, held_out, work.steps) if len(held_out) else torch.zeros(0)
    if len(held_out):
        numbers |= likelihood(log_q, held_out)
    if energy is None:
        return numbers
    if system is not None and system.log_z is not None and len(held_out):
        numbers |= floors(energy, held_out, log_q, system)
    w = weights(energy, x, log_density(flow, x, work.steps))
    z, error = log_z(w)
    numbers |= {"ess": effective_size(w), "ess_error": bootstrap(w, effective_size)}
    if folder is not None:
        pictures.weighted(energy, x, w, held_out, folder)
    if len(held_out):
        numbers["ess_forward"] = forward_effective_size(weights(energy, held_out, log_q))
    numbers |= {"log_z": z, "log_z_error": error}
    if system is not None and system.log_z is not None:
        numbers["log_z_known"] = system.log_z[0]
    u = energy(x.double())
    return numbers | {"energy_flow": u.mean().item(), "energy_weighted": float((w.softmax(0) * u.nan_to_num()).sum())}


def floors(energy: Energy, held_out: Tensor, log_q: Tensor, system: System) -> Numbers:
    """The value of the true distribution on clouds ``(n, N, D)``, and the excess of their log-densities ``(n,)`` over
    it."""
    assert system.log_z is not None
    u = energy(held_out.double())
    floor = u.mean().item() + system.log_z[0]
    excess = -log_q - u - system.log_z[0]  # cloud by cloud, most of the variance cancels
    return {
        "nll_floor": floor, "nll_unnormalised_floor": floor - system.normaliser,
        "nll_above_floor": excess.mean().item(),
        "nll_above_floor_error": (excess.std() / math.sqrt(len(excess))).item(),
    }  # fmt: skip


def _device(flow: Flow) -> torch.device:
    return next((p.device for p in flow.parameters()), torch.device("cpu"))


def _context(x: Tensor) -> Context:
    return Context.full(len(x), x.shape[1]).to(x.device)


def _counts(n: int) -> Iterator[int]:
    yield from [CHUNK] * (n // CHUNK)
    if n % CHUNK:
        yield n % CHUNK
