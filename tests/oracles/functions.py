"""Functions: Gaussian processes at both ends, on grids of any size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.paths import Gaussian
from fm_science.priors import GaussianProcess, Periodic
from fm_science.schedules import Linear
from fm_science.solvers import RK4
from fm_science.spaces import Functions
from fm_science.state import Context
from tests.oracles.table import largest, oracle


@dataclass(frozen=True)
class Processes:
    """Periodic Gaussian processes at both ends, on ``n`` equal sensors: every Fourier mode is on its own."""

    n: int
    before: GaussianProcess = GaussianProcess(Periodic(0.4, 1.0))
    after: GaussianProcess = GaussianProcess(Periodic(0.7, 1.0, std=1.5))

    @property
    def context(self) -> Context:
        places = torch.arange(self.n)[:, None] / self.n
        return Context.full(8, self.n, coords=places.expand(8, self.n, 1), grid=torch.full((8, 1), self.n))

    def spectrum(self, process: GaussianProcess) -> Tensor:
        """Variances of the Fourier modes."""
        row = process.kernel.covariance(torch.arange(self.n)[:, None] / self.n)
        return torch.fft.rfft(row).real.clamp_min(0) + process.nugget * process.kernel.std**2

    def __call__(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        before, after, t = self.spectrum(self.before), self.spectrum(self.after), t[:, None]
        gain = (t * after - (1 - t) * before) / ((1 - t) ** 2 * before + t**2 * after)
        return torch.fft.irfft(gain * torch.fft.rfft(x[..., 0]), self.n)[..., None]

    def map(self, x0: Tensor) -> Tensor:
        """Where the flow carries the noise ``x0``."""
        gain = (self.spectrum(self.after) / self.spectrum(self.before)).sqrt()
        return torch.fft.irfft(gain * torch.fft.rfft(x0[..., 0]), self.n)[..., None]


@oracle("Gaussian process to Gaussian process, 32 and 64 sensors: flow map", 1e-9)
def processes_map() -> float:
    worst = 0.0
    for n in (32, 64):
        laws = Processes(n)
        flow = Flow(Gaussian(Functions(1), Linear()), laws.before, laws)
        x0 = laws.before.sample(Functions(1), laws.context)
        worst = max(worst, largest(flow.transport(x0, laws.context, RK4(), 400) - laws.map(x0)))
    return worst


@oracle("Gaussian process to Gaussian process, 16 sensors: log-density", 1e-6)
def processes_density() -> float:
    laws = Processes(16)
    flow = Flow(Gaussian(Functions(1), Linear()), laws.before, laws)
    x = laws.after.sample(Functions(1), laws.context)
    exact = laws.after.log_prob(Functions(1).bind(laws.context), x)
    return largest(flow.log_prob(x, laws.context, steps=200) - exact)
