"""The Fourier neural operator: a network that acts on functions, not on grids.

A layer multiplies the lowest Fourier modes of its input by learned matrices and adds a pointwise map (Li et al. 2021,
equation 2). A mode is a wave of a fixed length in space, so the same weights serve every resolution: more sensors show
the network the same function more finely. Time steers each layer by a scale and a shift of its channels (Perez et al.
2018), and multiplies the input on its way to the output: waves beyond the kept modes, which only that product and the
pointwise maps can touch, are noise to be removed at a rate that time alone decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_science.errors import OptionError
from fm_science.networks.base import Network
from fm_science.networks.time import TimeEmbedding
from fm_science.state import Context


@lru_cache(maxsize=256)
def waves(n: int, top: int, half: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """exp(-2 pi i k j / n) / n, ``(K, n)``: the discrete Fourier transform for wave numbers k from -top, or with
    ``half`` from 0, to top. Few numbers are kept, so this costs no more than a fast transform and is one product."""
    k = torch.arange(0 if half else -top, top + 1, dtype=torch.float64)
    phase = -2 * math.pi / n * ((k[:, None] * torch.arange(n)) % n)
    table = torch.polar(torch.ones_like(phase), phase) / n
    return table.to(device, torch.complex64 if dtype == torch.float32 else torch.complex128)


class SpectralConvolution(nn.Module):
    """Learned matrices on the Fourier modes |k| <= modes of each axis, zero on the others.

    Args:
        width: channels in and out.
        modes: highest wave number of each axis. On a grid of n sensors those below n / 2 are used.
    """

    def __init__(self, width: int, modes: Sequence[int]) -> None:
        super().__init__()
        self.modes = tuple(modes)
        kept = (self.modes[-1] + 1, *(2 * m + 1 for m in self.modes[-2::-1]))  # real functions: half of the last axis
        self.weight = nn.Parameter(torch.randn(*kept, width, width, 2) / math.sqrt(2 * width))

    def forward(self, h: Tensor) -> Tensor:
        """``(B, *grid, width)`` to the same shape, in single precision at least: half has no complex numbers."""
        with torch.autocast(h.device.type, enabled=False):
            return self._convolved(h.to(torch.promote_types(h.dtype, torch.float32)))

    def _convolved(self, h: Tensor) -> Tensor:
        grid, most = h.shape[-2:0:-1], self.modes[::-1]  # from the last axis to the first
        top = [min(m, (n - 1) // 2) for m, n in zip(most, grid, strict=True)]
        tables = [waves(n, t, j == 0, h.dtype, h.device) for j, (n, t) in enumerate(zip(grid, top, strict=True))]
        weight = self.weight.narrow(0, 0, top[0] + 1)
        for j in range(1, len(grid)):
            weight = weight.narrow(j, most[j] - top[j], 2 * top[j] + 1)
        y = torch.cat([tables[0].real, tables[0].imag]) @ h
        y = torch.complex(*y.chunk(2, -2))
        for j, table in enumerate(tables[1:], 1):
            y = table @ y.movedim(-2, j)
        y = torch.einsum("b...i,...io->b...o", y, torch.view_as_complex(weight.to(h).contiguous()))
        for j in range(len(grid) - 1, 0, -1):
            y = (grid[j] * tables[j].mH @ y).movedim(j, -2)
        twice = grid[0] * torch.cat([tables[0][:1], 2 * tables[0][1:]])  # k and -k together
        return torch.cat([twice.real, twice.imag]).mT @ torch.cat([y.real, y.imag], -2)


class FourierLayer(nn.Module):
    """h + V gelu((1 + scale) (K h + W h) + shift), scale and shift from the clock ``(B, features)``; without a
    clock the plain layer gelu(K h + W h)."""

    def __init__(self, width: int, modes: Sequence[int], clock: int) -> None:
        super().__init__()
        self.spectral, self.pointwise = SpectralConvolution(width, modes), nn.Linear(width, width)
        self.clock = nn.Linear(clock, 2 * width) if clock else None
        self.out = nn.Linear(width, width) if clock else None

    def forward(self, h: Tensor, clock: Tensor) -> Tensor:
        y = self.spectral(h) + self.pointwise(h)
        if self.clock is None or self.out is None:
            return F.gelu(y)
        scale, shift = self.clock(clock).reshape(len(h), *[1] * (h.ndim - 2), -1).chunk(2, -1)
        return h + self.out(F.gelu(y * (1 + scale) + shift))


class FNO(Network):
    """A velocity or endpoint of functions on regular grids in one, two or three dimensions.

    Sensors lie row-major on the grid ``cond["grid"]`` ``(B, d)``, at ``cond["coords"]`` ``(B, N, d)``; the samples of a
    batch may have grids of their own. The waves live on a torus of the given period. Where that is longer than the
    grid, the rest is filled with zeros, so that functions without a period need not match at their ends.

    Args:
        channels: values at a sensor.
        modes: highest wave number of each axis; their number is the dimension d.
        width: channels inside.
        layers: Fourier layers.
        period: of each axis, in the units of the coordinates. A grid that is longer is taken as one period.
        reads: conditions ``(B, N)`` or ``(B, N, k)`` that are shown beside the values, by name with k; absent ones and
            NaN are shown as zeros.
        places: whether the network sees the coordinates, as a sine and a cosine around the torus; without, it commutes
            with shifts of a periodic function.
        clock: how time is told: "film" steers every layer, "channel" is one more input, constant over the sensors.
        slow: with "channel", time is divided by it.
        through: with "film", about what share of the input reaches the output before anything is learned.
    """

    def __init__(
        self, channels: int, modes: Sequence[int], width: int = 64, layers: int = 4, period: Sequence[float] = (),
        reads: Mapping[str, int] | None = None, places: bool = True, clock: str = "film", slow: float = 1.0,
        through: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if clock not in ("film", "channel"):
            raise OptionError(f"clock={clock!r}: expected 'film' or 'channel'.")
        self.dim, self.channels, self.period = len(modes), channels, tuple(period) or (1.0,) * len(modes)
        self.reads, self.places, self.steered, self.slow = dict(reads or {}), places, clock == "film", slow
        inputs = channels + sum(self.reads.values()) + 2 * self.dim * places + (not self.steered)
        features = 2 * width if self.steered else 0
        if self.steered:
            self.embed = nn.Sequential(
                TimeEmbedding(64, highest=100.0), nn.Linear(64, features), nn.SiLU(), nn.Linear(features, features)
            )
            self.gain = nn.Linear(features, channels)
        self.lift = nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.blocks = nn.ModuleList(FourierLayer(width, modes, features) for _ in range(layers))
        self.lower = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, channels))
        if self.steered and through:
            nn.init.constant_(self.gain.bias, through)
            with torch.no_grad():
                for weight in self.lower[-1].parameters():
                    weight.mul_(0.1)

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """``x`` ``(B, N, channels)`` at times ``t`` ``(B,)`` to raw output of the same shape.

        Raises:
            ValueError: for sensors that are on no regular grid of this network's dimension.
        """
        grid = context.cond.get("grid")
        if grid is None or grid.shape[1] != self.dim:
            raise ValueError(
                f"an FNO of {self.dim} dimensions needs functions on a regular grid, cond['grid'] of shape "
                f"(B, {self.dim}); got {None if grid is None else tuple(grid.shape)}. Use LatentOperator for others."
            )
        if bool((grid == grid[:1]).all()):
            return self._alike(x, t, context, tuple(grid[0].tolist()))
        kinds, kind = grid.unique(dim=0, return_inverse=True)
        out = torch.zeros_like(x)
        for number, shape in enumerate(kinds.tolist()):
            rows = (kind == number).nonzero().squeeze(1)
            out = out.index_copy(0, rows, self._alike(x[rows], t[rows], context.take(rows), tuple(shape)))
        return out

    def _alike(self, x: Tensor, t: Tensor, context: Context, grid: tuple[int, ...]) -> Tensor:
        """The output for samples that share a grid; their first sites fill it, the others are padding."""
        n = math.prod(grid)
        seen = self._inputs(x, t, context)[:, :n].unflatten(1, grid)
        clock = self.embed(t.to(x)) if self.steered else t
        coords = context.cond["coords"][:, :n].unflatten(1, grid)
        h = F.pad(self.lift(seen), self._margin(coords, grid))
        for block in self.blocks:
            h = block(h, clock)
        y = self.lower(h[(slice(None), *(slice(m) for m in grid))])
        if self.steered:
            y = y + self.gain(clock).reshape(len(x), *[1] * self.dim, -1) * seen[..., : self.channels]
        return F.pad(y.flatten(1, self.dim), (0, 0, 0, x.shape[1] - n))

    def _inputs(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """Everything that is known at each sensor, ``(B, N, inputs)``."""
        columns = [x]
        for name, k in self.reads.items():
            value = context.cond.get(name)
            value = x.new_zeros(*x.shape[:2], k) if value is None else value.to(x).reshape(*x.shape[:2], k)
            columns.append(torch.nan_to_num(value))
        if self.places:
            angle = 2 * math.pi * context.cond["coords"].to(x) / x.new_tensor(self.period)
            columns += [angle.sin(), angle.cos()]
        if not self.steered:
            columns.append((t.to(x) / self.slow)[:, None, None].expand(*x.shape[:2], 1))
        return torch.cat(columns, -1)

    def _margin(self, coords: Tensor, grid: tuple[int, ...]) -> list[int]:
        """How many steps of the grid are missing to the period of each axis, as `F.pad` wants them."""
        margin = [0, 0]
        for axis in reversed(range(self.dim)):
            n = grid[axis]
            line = coords[0].select(axis, n - 1) - coords[0].select(axis, 0)
            step = float(line[..., axis].flatten()[0]) / max(1, n - 1)
            margin += [0, max(0, round(self.period[axis] / step) - n) if step > 0 else 0]
        return margin
