"""Families of generated functions, with known distributions.

Gaussian processes and their mixtures have every distribution in closed form. Heat flow and Stokes' second problem are
solutions of equations with random parameters, in closed form; Burgers' equation and Darcy flow are solved numerically.
All are generated for a batch at once, from a generator's seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.priors import RBF, GaussianProcess, Matern, Periodic
from fm_science.priors.process import Kernel
from fm_science.spaces import Functions
from fm_science.state import Context

from .sensors import Shape, places

Evaluate = Callable[[Tensor, Shape | None], Tensor]  # coords (M, N, d) of the unit box, grid -> values (M, N, C)


@dataclass(frozen=True)
class Family:
    """Functions on a box.

    Attributes:
        periodic: which axes have a period; their number is the dimension.
        values: ``(coords (M, N, d) in the unit box, grid) -> (M, N, C)``, random, from torch's generator.
        low, size: ``(d,)`` the corner and the sides of the box, in the family's units.
        gridded: whether values are known on whole regular grids only.
    """

    periodic: tuple[bool, ...]
    values: Evaluate
    low: tuple[float, ...]
    size: tuple[float, ...]
    gridded: bool = False

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.periodic)


def kernel(name: str, length: float, nu: float = 1.5, std: float = 1.0, period: float | None = None) -> Kernel:
    """A kernel by its name: rbf, matern or periodic (lengths of the last in units of period / pi)."""
    if name == "periodic":
        return Periodic(length, period or 1.0, std)
    return RBF(length, std, period) if name == "rbf" else Matern(nu, length, std, period)


def draws(chosen: Kernel, coords: Tensor, grid: Shape | None, channels: int = 1, nugget: float = 1e-6) -> Tensor:
    """Independent samples of a centred Gaussian process at ``coords`` ``(M, N, d)``: ``(M, N, channels)``."""
    cond = {"coords": coords}
    if grid is not None:
        cond["grid"] = torch.tensor(grid).expand(len(coords), -1)
    context = Context(torch.ones(coords.shape[:2], dtype=torch.bool), cond)
    prior = GaussianProcess(chosen, nugget)
    if grid is not None or bool((coords == coords[:1]).all()):
        return prior.sample(Functions(channels), context).double()
    rows = torch.arange(len(coords)).split(256)  # factors of different sensors need much memory
    return torch.cat([prior.sample(Functions(channels), context.take(r)).double() for r in rows])


def process(chosen: Kernel, dim: int, periodic: bool = False) -> Family:
    """A centred Gaussian process on the unit box."""
    return Family((periodic,) * dim, lambda x, grid: draws(chosen, x, grid), (0.0,) * dim, (1.0,) * dim)


def mixture(chosen: Kernel, slope: float = 10.0) -> Family:
    """Two Gaussian processes on [0, 1], in turn, with the means slope (x - 1/2) and its negative: the mixture of
    Kerrigan, Migliorini & Smyth (2024) with an RBF kernel of length 0.1 and variance 0.4."""

    def values(x: Tensor, grid: Shape | None) -> Tensor:
        sign = 1 - 2 * (torch.arange(len(x)) % 2).double()[:, None, None]
        return sign * slope * (x[..., :1] - 0.5) + draws(chosen, x, grid)

    return Family((False,), values, (0.0,), (1.0,))


def heat() -> Family:
    """u(x, t) = sin(x + phi) exp(-nu t), solutions of u_t = nu u_xx with random phase phi in [0, pi] and diffusivity nu
    in [1, 5] (Cheng et al. 2025): functions of position, which is periodic, and time."""

    def values(x: Tensor, grid: Shape | None) -> Tensor:
        nu, phi = 1 + 4 * torch.rand(len(x), 1).double(), math.pi * torch.rand(len(x), 1).double()
        return (torch.sin(2 * math.pi * x[..., 0] + phi) * torch.exp(-nu * x[..., 1]))[..., None]

    return Family((True, False), values, (0.0, 0.0), (2 * math.pi, 1.0))


def stokes(amplitude: float = 2.0) -> Family:
    """u(x, t) = A exp(-k x) cos(k x - w t), the flow above an oscillating plate (Stokes' second problem), with random
    k in [2, 20] and w in [2, 8] (Cheng et al. 2025)."""

    def values(x: Tensor, grid: Shape | None) -> Tensor:
        k, w = 2 + 18 * torch.rand(len(x), 1).double(), 2 + 6 * torch.rand(len(x), 1).double()
        y, t = x.unbind(-1)
        return (amplitude * torch.exp(-k * y) * torch.cos(k * y - w * t))[..., None]

    return Family((False, False), values, (0.0, 0.0), (1.0, 1.0))


def burgers(viscosity: float = 0.01, until: float = 1.0, fine: int = 256) -> Family:
    """u_t + u u_x = viscosity u_xx on the circle [0, 1), from a smooth random initial state: channel 0 is u at time 0,
    channel 1 at ``until``. Solved by a pseudo-spectral method with an exact viscous factor and Runge-Kutta steps, on
    ``fine`` points or a multiple of the grid's."""

    def values(x: Tensor, grid: Shape | None) -> Tensor:
        assert grid is not None
        n = grid[0] * max(1, -(-fine // grid[0]))
        dense = places((n,), [True]).expand(len(x), -1, -1)
        start = draws(RBF(0.15, 0.5, 1.0), dense, (n,))[..., 0]
        both = torch.stack([start, burgers_solve(start, viscosity, until)], -1)
        return both[:, :: n // grid[0]]

    return Family((True,), values, (0.0,), (1.0,), gridded=True)


def burgers_solve(u: Tensor, viscosity: float, until: float, courant: float = 0.5) -> Tensor:
    """The solution of Burgers' equation at time ``until`` from periodic ``u`` ``(M, n)``, in double precision."""
    n = u.shape[-1]
    k = torch.arange(n // 2 + 1, dtype=torch.float64) * 2 * math.pi
    kept = (torch.arange(n // 2 + 1) <= n // 3).double()  # two thirds: products are not aliased
    steps = max(1, math.ceil(until * n * float(u.abs().max()) / courant))
    h = until / steps
    half = torch.exp(-0.5 * h * viscosity * k * k)

    def push(w: Tensor) -> Tensor:
        v = torch.fft.irfft(w, n)
        return -0.5j * k * kept * torch.fft.rfft(v * v)

    w = torch.fft.rfft(u.double()) * kept
    for _ in range(steps):  # the integrating-factor form of the classical method
        a = push(w)
        b = push(half * (w + 0.5 * h * a))
        c = push(half * w + 0.5 * h * b)
        d = push(half * half * w + h * half * c)
        w = half * half * w + h / 6 * (half * half * a + 2 * half * (b + c) + d)
    return torch.fft.irfft(w, n)


def darcy(ratio: float = 4.0) -> Family:
    """-div(a grad u) = 1 on the unit square with u = 0 on its boundary, and a random medium a of two materials whose
    permeabilities are 1 and ``ratio`` (Li et al. 2021, smaller): channel 0 is log a, channel 1 is u."""

    def values(x: Tensor, grid: Shape | None) -> Tensor:
        assert grid is not None
        rough = draws(Matern(1.5, 0.25, 1.0, 2.0), x, grid)[..., 0].unflatten(1, grid)
        a = torch.where(rough > 0, ratio, 1.0).double()
        return torch.stack([a.log(), darcy_solve(a)], -1).flatten(1, 2)

    return Family((False, False), values, (0.0, 0.0), (1.0, 1.0), gridded=True)


def darcy_solve(a: Tensor, tolerance: float = 1e-8) -> Tensor:
    """u of -div(a grad u) = 1 with zero boundary values, for positive ``a`` ``(M, n, m)`` at the nodes of the unit
    square. Five-point differences with harmonic means between nodes, by conjugate gradients with the constant medium as
    preconditioner, which is diagonal in sine waves."""
    n, m = a.shape[1:]
    h = 1 / (n - 1), 1 / (m - 1)
    down = 2 / (1 / a[:, 1:] + 1 / a[:, :-1])[:, :, 1:-1] / h[0] ** 2
    across = 2 / (1 / a[:, :, 1:] + 1 / a[:, :, :-1])[:, 1:-1] / h[1] ** 2

    def apply(u: Tensor) -> Tensor:
        wide = torch.nn.functional.pad(u, (1, 1, 1, 1))
        flow = (down * wide[:, :, 1:-1].diff(dim=1), across * wide[:, 1:-1].diff(dim=2))
        return -flow[0].diff(dim=1) - flow[1].diff(dim=2)

    s, e = zip(*(_sines(k, step) for k, step in zip((n, m), h, strict=True)), strict=True)
    eigen = e[0][:, None] + e[1]

    def soften(r: Tensor) -> Tensor:
        return s[0] @ ((s[0] @ r @ s[1]) / eigen) @ s[1]

    r = torch.ones_like(a[:, 1:-1, 1:-1])
    u, z = torch.zeros_like(r), soften(r)
    p, rz = z, (r * z).sum((1, 2), keepdim=True)
    first = rz
    for _ in range(200):
        ap = apply(p)
        step = rz / (p * ap).sum((1, 2), keepdim=True)
        u, r = u + step * p, r - step * ap
        z = soften(r)
        rz, old = (r * z).sum((1, 2), keepdim=True), rz
        if bool((rz < tolerance**2 * first).all()):
            break
        p = z + rz / old * p
    return torch.nn.functional.pad(u, (1, 1, 1, 1))


def _sines(n: int, h: float) -> tuple[Tensor, Tensor]:
    """The orthonormal sine waves on the n - 2 inner nodes of a line, and the eigenvalues of -d²/dx² there."""
    k = torch.arange(1, n - 1, dtype=torch.float64)
    waves = math.sqrt(2 / (n - 1)) * torch.sin(math.pi * k[:, None] * k / (n - 1))
    return waves, (2 - 2 * torch.cos(math.pi * k / (n - 1))) / h**2


def names() -> Sequence[str]:
    """The families by name."""
    return ("gp", "mogp", "heat", "stokes", "burgers", "darcy")
