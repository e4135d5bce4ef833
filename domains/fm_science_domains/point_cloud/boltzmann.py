"""What a flow is worth as a sampler of exp(-U): likelihood, importance weights, and the way its samples travel.

A flow knows the density q of what it draws. So every sample x has a weight exp(-U(x)) / q(x), and weighted averages are
exact however wrong the flow is, as long as it covers everything (Noé et al. 2019). The effective sample size says how
many of the samples count; the mean weight estimates Z.

Likelihoods are over centred clouds with an orthonormal basis. Papers on these systems often leave out the normaliser
of the Gaussian prior, so a second number without it stands beside each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.solvers import RK4
from fm_science.state import Context

from .energies import Energy
from .systems import System

CHUNK = 256  # clouds carried at once
Numbers = dict[str, float]


def log_density(flow: Flow, x: Tensor, steps: int = 20, watch: Callable[[int], None] = lambda n: None) -> Tensor:
    """log q of clouds of equal size ``(n, N, D)`` in nats, ``(n,)``, by Runge-Kutta steps and the exact trace."""
    parts = []
    with torch.no_grad():
        for chunk in x.to(flow.dtype).split(CHUNK):
            parts.append(flow.log_prob(chunk, _context(chunk), RK4(), steps))
            watch(len(chunk))
    return torch.cat(parts).double()


def likelihood(flow: Flow, x: Tensor, steps: int = 20, **options: Any) -> Numbers:
    """Negative log-likelihood of clouds ``(n, N, D)``: mean, standard error, and without the prior's normaliser."""
    nll = -log_density(flow, x, steps, **options)
    freedom = (x.shape[1] - 1) * x.shape[2]
    return {
        "nll": nll.mean().item(), "nll_error": (nll.std() / math.sqrt(len(nll))).item(),
        "nll_unnormalised": nll.mean().item() - 0.5 * freedom * math.log(2 * math.pi),
    }  # fmt: skip


def weights(flow: Flow, energy: Energy, x: Tensor, steps: int = 20, **options: Any) -> Tensor:
    """log exp(-U) / q of clouds, ``(n,)``; clouds with energies that are no numbers weigh nothing."""
    log_w = -energy(x.double()) - log_density(flow, x, steps, **options)
    return log_w.nan_to_num(-math.inf, -math.inf, -math.inf)


def effective_size(log_w: Tensor) -> float:
    """The share of samples of q that count: (sum w)² / (n sum w²)  (Kish 1965)."""
    return float((2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()) / len(log_w)


def forward_effective_size(log_w: Tensor) -> float:
    """The same share from samples of exp(-U) / Z, 1 / (E w E 1/w): it notices what the flow has forgotten."""
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
    """``n`` new clouds ``(n, N, D)``, with the mean length of their ways from noise and the mean ratio of that length
    to the straight distance (1: straight), both over the coordinates of all points together."""
    found, length, straight = [], [], []
    with torch.no_grad(), torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for count in _counts(n):
            context = Context.full(count, points)
            x = first = flow.noise(context)
            way = torch.zeros(count)
            for y in flow.trajectory(x, context, RK4(), steps):
                way, x = way + (y - x).flatten(1).norm(dim=1), y
            found.append(x)
            length.append(way)
            straight.append((x - first).flatten(1).norm(dim=1))
    l, s = torch.cat(length), torch.cat(straight)
    return torch.cat(found), {"path_length": l.mean().item(), "straightness": (l / s).mean().item()}


def appraise(
    flow: Flow, energy: Energy | None, held_out: Tensor, n: int = 1000, steps: int = 20, seed: int = 0,
    system: System | None = None, watch: Callable[[int], None] = lambda n: None,
) -> Numbers:  # fmt: skip
    """All numbers of a flow on clouds of one size, with what a perfect flow would reach beside them.

    Args:
        flow: a trained flow.
        energy: in kT; ``None``: no weights.
        held_out: clouds of the data ``(m, N, D)``, for the likelihood; may be empty.
        n: new clouds for weights and paths.
        steps: of the Runge-Kutta solver.
        seed: of the new clouds.
        system: whose known log Z gives the floor.
        watch: called with the number of clouds after each chunk of densities.
    """
    x, numbers = ways(flow, n, held_out.shape[1], steps, seed)
    if len(held_out):
        numbers |= likelihood(flow, held_out, steps, watch=watch)
    if energy is None:
        return numbers
    if system is not None and system.log_z is not None and len(held_out):
        floor = energy(held_out.double()).mean().item() + system.log_z[0]
        numbers |= {"nll_floor": floor, "nll_unnormalised_floor": floor - system.normaliser}
    w = weights(flow, energy, x, steps, watch=watch)
    z, error = log_z(w)
    numbers |= {"ess": effective_size(w), "ess_error": bootstrap(w, effective_size), "log_z": z, "log_z_error": error}
    if system is not None and system.log_z is not None:
        numbers["log_z_known"] = system.log_z[0]
    if len(held_out):
        numbers["ess_forward"] = forward_effective_size(weights(flow, energy, held_out, steps, watch=watch))
    share = w.softmax(0)
    u = energy(x.double())
    return numbers | {"energy_flow": u.mean().item(), "energy_weighted": float((share * u.nan_to_num()).sum())}


def _context(x: Tensor) -> Context:
    return Context.full(len(x), x.shape[1]).to(x.device)


def _counts(n: int) -> Iterator[int]:
    yield from [CHUNK] * (n // CHUNK)
    if n % CHUNK:
        yield n % CHUNK
