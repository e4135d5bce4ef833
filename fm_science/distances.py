"""Distances between laws, from points of each.

All take points as vectors, ``(n, d)`` and ``(m, d)``, that count equally. The Wasserstein distance is the least mean
cost of carrying one set to the other; the others are what is computed in its place: with entropy, along random lines,
between Gaussians in closed form, or by a critic that learns the dual.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fm_science.seeds import seeded


def wasserstein(x: Tensor, y: Tensor, p: float = 2.0) -> float:
    """The Wasserstein-p distance, exact: (min over couplings of E|x - y|^p)^(1/p), by the network simplex of POT
    (Bonneel et al. 2011). It costs about n³.

    Raises:
        ValueError: unless ``x`` and ``y`` are points of as many coordinates, and p >= 1.
    """
    import ot

    _check(x, y, p)
    cost = torch.cdist(x.double(), y.double()) ** p
    return max(0.0, float(ot.emd2([], [], cost.cpu().numpy(), numItermax=2_000_000))) ** (1 / p)


def sliced_wasserstein(x: Tensor, y: Tensor, p: float = 2.0, directions: int = 128, seed: int = 0) -> float:
    """The p-th root of the mean p-th power of the Wasserstein-p distances of projections on random directions (Bonneel,
    Rabin, Peyré & Pfister 2015).

    Raises:
        ValueError: as :func:`wasserstein`.
    """
    _check(x, y, p)
    generator = torch.Generator().manual_seed(seed)
    axes = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64).to(x.device)
    axes = axes / axes.norm(dim=0)
    return float(_by_quantiles(x.double() @ axes, y.double() @ axes, p).mean()) ** (1 / p)


def line_wasserstein(x: Tensor, y: Tensor, p: float = 1.0) -> float:
    """The Wasserstein-p distance of two sets of numbers ``(n,)`` and ``(m,)``, exact, from their quantile functions;
    NaN if one is empty."""
    if not len(x) or not len(y):
        return math.nan
    return float(_by_quantiles(x.double()[:, None], y.double()[:, None], p)) ** (1 / p)


def _by_quantiles(x: Tensor, y: Tensor, p: float) -> Tensor:
    """The p-th power of the Wasserstein-p distance of each column of ``(n, k)`` and ``(m, k)``: ``(k,)``."""
    a, b = (v.sort(0).values for v in (x, y))
    levels = torch.cat([torch.arange(1, len(v) + 1, device=x.device).double() / len(v) for v in (a, b)]).unique()
    width = levels.diff(prepend=levels.new_zeros(1))
    middle = levels - 0.5 * width  # both quantile functions are flat between levels
    pick = [v[(middle * len(v)).long().clamp_max(len(v) - 1)] for v in (a, b)]
    return (width[:, None] * (pick[0] - pick[1]).abs() ** p).sum(0)


def sinkhorn_divergence(
    x: Tensor, y: Tensor, reg: float = 0.1, p: float = 2.0, steps: int = 2000, tolerance: float = 1e-6
) -> Tensor:
    """S(x, y) = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2, where OT is the least of E|x - y|^p + reg KL(plan | product)
    (Genevay, Peyré & Cuturi 2018; Feydy et al. 2019). It is zero for equal sets, tends to the p-th power of the
    Wasserstein distance as reg falls and to an energy distance as it grows. Gradients flow to the points.

    Args:
        x, y: ``(n, d)`` and ``(m, d)``.
        reg: weight of the entropy, in units of the cost, positive.
        p: power of the distance.
        steps, tolerance: most iterations, and the largest last change of a potential, in units of reg.

    Returns:
        ``()``.

    Raises:
        ValueError: as :func:`wasserstein`, and for a ``reg`` that is not positive.
        RuntimeError: where ``steps`` do not suffice.
    """
    _check(x, y, p)
    if not reg > 0:
        raise ValueError(f"sinkhorn_divergence(reg={reg}): the weight of the entropy must be positive.")
    costs = [_power(a, b, p) for a, b in ((x, y), (x, x), (y, y))]
    whole, first, second = (_entropic_cost(cost, reg, steps, tolerance) for cost in costs)
    return whole - 0.5 * first - 0.5 * second


def _power(x: Tensor, y: Tensor, p: float) -> Tensor:
    square = (x[:, None] - y[None]).square().sum(-1)
    return square if p == 2 else (square + 1e-30) ** (p / 2)  # the root has no slope at zero


def _entropic_cost(cost: Tensor, reg: float, steps: int, tolerance: float) -> Tensor:
    """The least entropic cost ``()`` of a table ``(n, m)``; its gradient by the costs is the plan."""
    n, m = cost.shape
    table = cost.detach() / reg
    f, g = table.new_zeros(n), table.new_zeros(m)
    for _ in range(steps):
        before = f
        f = -torch.logsumexp(g - table, 1) + math.log(m)
        g = -torch.logsumexp(f[:, None] - table, 0) + math.log(n)
        if float((f - before).abs().max()) < tolerance:
            break
    else:
        raise RuntimeError(f"Sinkhorn's iterations did not converge in {steps} steps: raise reg ({reg:g}) or steps.")
    plan = (f[:, None] + g - table).exp() / (n * m)
    value = reg * (f.mean() + g.mean())
    return value + (plan * (cost - cost.detach())).sum()  # the envelope theorem: potentials stand still


def bures(mean0: Tensor, covariance0: Tensor, mean1: Tensor, covariance1: Tensor) -> Tensor:
    """The Wasserstein-2 distance ``()`` of two Gaussians: the root of |m0 - m1|² + tr(C0 + C1 - 2 (C0^1/2 C1
    C0^1/2)^1/2) (Dowson & Landau 1982; Bhatia, Jain & Lim 2019).

    Args:
        mean0, mean1: ``(d,)``.
        covariance0, covariance1: ``(d, d)``, symmetric and not negative.
    """
    root = _root(covariance0)
    inner = torch.linalg.eigvalsh(root @ covariance1 @ root).clamp_min(0).sqrt().sum()
    square = (mean0 - mean1).square().sum() + covariance0.trace() + covariance1.trace() - 2 * inner
    return square.clamp_min(0).sqrt()


def frechet(x: Tensor, y: Tensor) -> float:
    """The squared Wasserstein-2 distance of the Gaussians with the means and covariances of both sets: |m_x - m_y|² +
    tr(S_x + S_y - 2 (S_x S_y)^1/2) (Dowson & Landau 1982; of features, Heusel et al. 2017). The trace of the root is
    the sum of the singular values of A Bᵀ, for any A and B with AᵀA = S_x and BᵀB = S_y. NaN for fewer than two points;
    few points are biased upwards."""
    if min(len(x), len(y)) < 2:
        return math.nan
    a, b = (torch.linalg.qr((v - v.mean(0)) / (len(v) - 1) ** 0.5, mode="r").R for v in (x, y))
    square = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum()
    return float((square - 2 * torch.linalg.svdvals(a @ b.T).sum()).clamp_min(0))


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, zero for equal laws only (Székely & Rizzo 2013), without pairs of a point
    with itself: without bias, so that it may fall below zero where the laws are alike. 0 for a set and itself; NaN for
    fewer than two points."""
    if min(len(x), len(y)) < 2:
        return math.nan
    if torch.equal(x, y):
        return 0.0
    within = [torch.nn.functional.pdist(v).mean() for v in (x, y)]
    return float(2 * torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").mean() - sum(within))


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """The Jensen-Shannon divergence in bits of two arrays of counts (Lin 1991), from 0 to 1; NaN if one is empty."""
    if p.sum() == 0 or q.sum() == 0:
        return math.nan
    p, q = p.double() / p.sum(), q.double() / q.sum()
    middle = (p + q) / 2
    return sum(torch.special.xlogy(r, r / middle.clamp_min(1e-300)).sum().item() for r in (p, q)) / (2 * math.log(2))


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def critic_wasserstein(
    x: Tensor, y: Tensor, steps: int = 500, penalty: float = 10.0, width: int = 64, batch: int = 256, seed: int = 0
) -> float:
    """The Wasserstein-1 distance as a critic finds it: the largest E c(x) - E c(y) of a perceptron c whose slope is
    held near one by a penalty (Gulrajani et al. 2017, eq. 3). An estimate: it falls short where the critic is too
    weak, and a distance W comes out too long by a factor of up to 1 + W / (2 penalty), the slope at which the penalty
    balances the gain. On small sets :func:`wasserstein` with p = 1 is exact.

    Args:
        x, y: ``(n, d)`` and ``(m, d)``.
        steps: of Adam.
        penalty: weight of E(|grad c| - 1)² at points between those of both sets.
        width: hidden features of the two layers.
        batch: points of each set a step.
        seed: of first weights and batches; torch's generator is left as it was.

    Raises:
        ValueError: unless ``x`` and ``y`` are points of as many coordinates.
    """
    _check(x, y, 1.0)
    with seeded(seed, x.device), torch.enable_grad():
        critic = nn.Sequential(
            nn.Linear(x.shape[1], width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        ).to(x)  # fmt: skip
        optimizer = torch.optim.Adam(critic.parameters(), 1e-2, betas=(0.5, 0.9))
        pace = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        for _ in range(steps):
            a, b = (v[torch.randint(len(v), (batch,), device=v.device)] for v in (x, y))
            share = torch.rand(batch, 1, device=x.device, dtype=x.dtype)
            slope = torch.func.grad(lambda z: critic(z).sum())(share * a + (1 - share) * b).norm(dim=1)
            loss = critic(b).mean() - critic(a).mean() + penalty * (slope - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pace.step()
        return float((critic(x).mean() - critic(y).mean()).detach())


def _check(x: Tensor, y: Tensor, p: float) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(f"points of shapes {tuple(x.shape)} and {tuple(y.shape)}: expected (n, d) and (m, d).")
    if p < 1:
        raise ValueError(f"p={p}: the power of a Wasserstein distance is at least 1.")
