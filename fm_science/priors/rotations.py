"""The isotropic Gaussian on rotations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.priors.base import Prior, bound
from fm_science.priors.gaussian import positive
from fm_science.spaces.base import Space, total
from fm_science.spaces.numerics import safe_norm, sinc, sinhc
from fm_science.spaces.rotations import rotation_exp
from fm_science.state import Context, State, masked_where


@dataclass(frozen=True)
class IGSO3(Prior):
    """The isotropic Gaussian on SO(3) around the identity: the heat kernel (Nikolayev & Savyolova 1970; Leach et al.
    2022). With respect to the uniform distribution its density is a function of the angle omega in [0, pi],

        f(omega) = sum_l (2l + 1) exp(-l(l + 1) std² / 2) sin((l + 1/2) omega) / sin(omega / 2),

    and the angle has the density f(omega) (1 - cos omega) / pi. Small widths use the same sum after Poisson's formula,
    which keeps full relative accuracy in the tails.

    Args:
        std: standard deviation of a small rotation about each axis, in radians.
    """

    std: float = 1.5

    def __post_init__(self) -> None:
        positive("IGSO3", std=self.std)

    def log_kernel(self, omega: Tensor) -> Tensor:
        """log f at angles in [0, pi], in double precision."""
        omega = omega.double()
        return self._series(omega) if self.std > 2 else self._poisson(omega)

    def _series(self, omega: Tensor) -> Tensor:
        degree = torch.arange(32, dtype=omega.dtype, device=omega.device)
        half = 0.5 * omega[..., None]
        quotient = (2 * degree + 1) * sinc((2 * degree + 1) * half) / sinc(half)
        weight = (2 * degree + 1) * torch.exp(-0.5 * degree * (degree + 1) * self.std**2)
        return (weight * quotient).sum(-1).log()

    def _poisson(self, omega: Tensor) -> Tensor:
        """sqrt(2 pi) e^(std²/8) / std³ sum_k (-1)^k (omega - 2 pi k) e^(-(omega - 2 pi k)² / (2 std²)) / sin(omega/2),
        with the terms k and -k combined."""
        k = torch.arange(1, 5, dtype=omega.dtype, device=omega.device)
        z = 2 * math.pi * k * omega[..., None] / self.std**2
        c = 2 * (math.pi * k / self.std) ** 2
        forth, back = torch.exp(z - c), torch.exp(-z - c)
        near = z < 1  # there the difference of both would cancel: sinh(z) / z does not
        odd = torch.where(near, 2 * sinhc(torch.where(near, z, 0.0)) * torch.exp(-c), (forth - back) / z.clamp_min(1))
        pair = forth + back - 2 * c * odd
        images = 1 + ((1 - 2 * (k % 2)) * pair).sum(-1)
        scale = 0.5 * math.log(2 * math.pi) + self.std**2 / 8 - 3 * math.log(self.std) + math.log(2)
        return scale - 0.5 * (omega / self.std) ** 2 + images.log() - sinc(0.5 * omega).log()

    def sample(self, space: Space, context: Context) -> State:
        space, like = bound(self, space, context)
        top = min(math.pi, 12 * self.std)
        omega = torch.linspace(0, top, 4097, dtype=torch.float64, device=like.device)
        density = self.log_kernel(omega).exp() * torch.sin(0.5 * omega).square()
        cdf = torch.cat([density.new_zeros(1), (density[1:] + density[:-1]).cumsum(0)])
        cdf = cdf / cdf[-1]
        u = torch.rand(space.mask.shape, dtype=torch.float64, device=like.device)
        right = torch.searchsorted(cdf, u).clamp(1, len(cdf) - 1)
        step = (u - cdf[right - 1]) / (cdf[right] - cdf[right - 1]).clamp_min(1e-300)
        angle = (omega[right - 1] + step.clamp(0, 1) * omega[1]).to(like.dtype)
        axis = torch.randn(*angle.shape, 3, device=like.device)
        return space.project(rotation_exp(angle[..., None] * axis / safe_norm(axis)))

    def log_prob(self, space: Space, x: Tensor) -> Tensor:
        omega = safe_norm(space.leaf.log(space.leaf.origin(x).expand_as(x), x)).squeeze(-1)
        log = self.log_kernel(omega).to(x.dtype) - math.log(space.leaf.volume)
        return total(masked_where(space.free_mask, log, 0.0))
