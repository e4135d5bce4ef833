"""Functions as training data: made by a family, or read from a file; each known at sensors.

Inside, places lie in the unit box and values are shifted and scaled by one number a channel; outside, everything is in
the units of its source. All functions may share a grid, or each may have sensors of its own.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_science.domain import option
from fm_science.errors import UserError, nearest
from fm_science.files import Dropped
from fm_science.state import Context

from . import families
from .families import Family, kernel
from .files import read
from .sensors import Sampled, Shape, parse, places, quadrature, scattered_weights
from .stored import FunctionPreparation, functions, layout

log = logging.getLogger(__name__)
Item = tuple[Tensor, dict[str, Tensor]]
MOST = 1 << 18  # sensors in all, of layouts that new functions may have


@dataclass(frozen=True)
class Data:
    """Which functions to learn from, and how many at a time."""

    source: str = option(
        "gp", "gp, mogp, heat, stokes, burgers, darcy, a file or folder of .npz, .npy, .csv or .nc, or a prepared file"
    )
    grid: int | str = option(64, "sensors of a family on each axis, such as 64 or 32x48")
    sensors: int = option(0, "with a positive value, so many random sensors for each function instead of a grid", low=0)
    dim: int = option(1, "dimension of a gp", low=1, high=3)
    kernel: str = option("matern", "kernel of a gp", choices=("rbf", "matern", "periodic"))
    nu: float = option(1.5, "smoothness of a Matern gp", choices=(0.5, 1.5, 2.5))
    length: float = option(0.3, "correlation length of a gp on the unit box", low=0.001)
    periodic: bool = option(False, "whether a gp, or the functions of a file, are periodic on their box")
    train: int = option(2_000, "training functions of a family", low=1)
    held_out: int = option(500, "held-out functions of a family", low=1)
    array: str | None = option(
        None, "array of a .npz or .nc file, or several with commas as channels; none: values, x, or the only one"
    )
    axis: str | None = option(None, "the array of such a file with the coordinates of its only axis")
    channel_axis: bool = option(False, "whether the last axis of the array counts channels")
    missing: str = option(
        "drop", "functions with missing values on a grid: left out, or kept with sensors of their own",
        choices=("drop", "keep"),
    )  # fmt: skip
    share: float = option(0.1, "held-out share of a file; 0: all are trained and held out", low=0, high=0.9)
    scale: str = option("standard", "values inside: mean 0 and spread 1, from -1 to 1, or as they are",
                        choices=("standard", "range", "none"))  # fmt: skip
    cache: str | None = option(None, "folder that keeps solutions of equations; none: the user's cache")
    batch: int = option(64, "functions a batch", low=1)
    workers: int = option(0, "processes that prepare batches", low=0)


@dataclass(frozen=True, eq=False)
class Frame:
    """From the units of a source to the inside and back.

    Attributes:
        low, size: ``(d,)`` corner and sides of the box; a periodic side is the period.
        periodic: which axes have a period.
        shift, scale: ``(C,)`` of the values.
    """

    low: Tensor
    size: Tensor
    periodic: tuple[bool, ...]
    shift: Tensor
    scale: Tensor

    def inside(self, values: Tensor) -> Tensor:
        """Values ``(..., C)`` in single precision, shifted and scaled."""
        return ((values.double() - self.shift) / self.scale).float()

    def outside(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`inside`."""
        return values.detach().cpu().double() * self.scale + self.shift

    def unit(self, coords: Tensor) -> Tensor:
        """Places in the unit box."""
        return (coords.double() - self.low) / self.size

    def box(self, unit: Tensor) -> Tensor:
        """The inverse of :meth:`unit`."""
        return unit.detach().cpu().double() * self.size + self.low


class Fields(Dataset):
    """Functions as items ``(values (N, C), {"coords" (N, d), "weights" (N,)[, "grid" (d,)]})``, inside units.

    Attributes:
        functions: as their source gives them.
        sizes: ``(len,)`` int64, sensors of each.
    """

    def __init__(self, functions: Sequence[Sampled], frame: Frame) -> None:
        self.functions, self.frame = list(functions), frame
        self.sizes = torch.tensor([len(f) for f in functions], dtype=torch.long)
        self.gridded = all(f.grid is not None for f in functions)
        first = functions[0].coords
        self.shared = all(f.coords is first or torch.equal(f.coords, first) for f in functions)
        self._values = [frame.inside(f.values) for f in functions]
        known: dict[int, Tensor] = {}
        self._coords = [known.setdefault(id(f.coords), frame.unit(f.coords).float()) for f in functions]

    def __len__(self) -> int:
        return len(self.functions)

    def __getitem__(self, index: int) -> Item:
        f = self.functions[index]
        cond = {"coords": self._coords[index], "weights": f.weights.float()}
        if self.gridded and f.grid is not None:
            cond["grid"] = torch.tensor(f.grid)
        return self._values[index], cond


@dataclass(frozen=True)
class Sets:
    """What a source gives: training and held-out functions, the frame they share, the family, where there is one, what
    was left out, and the digest of a prepared file."""

    train: Fields
    held_out: Fields
    frame: Frame
    family: Family | None = None
    dropped: tuple[Dropped, ...] = ()
    digest: str = ""

    @property
    def dim(self) -> int:
        """Coordinates of a sensor."""
        return len(self.frame.periodic)

    @property
    def channels(self) -> int:
        """Values at a sensor."""
        return len(self.frame.shift)


@dataclass(frozen=True, eq=False)
class Summary:
    """What sampling needs of the training functions.

    Attributes:
        frame: the units of the source.
        shared: whether all functions have the same sensors.
        gridded: whether all are on regular grids.
        conditions: of each layout of sensors that new functions may have: ``coords (N, d)``, ``weights (N,)`` and,
            where there are grids, ``grid (d,)``. One where sensors are shared, else those of random functions.
    """

    frame: Frame
    shared: bool
    gridded: bool
    conditions: Sequence[Mapping[str, Tensor]]

    @property
    def dim(self) -> int:
        """Coordinates of a sensor."""
        return len(self.frame.periodic)

    @property
    def channels(self) -> int:
        """Values at a sensor."""
        return len(self.frame.shift)

    @staticmethod
    def of(sets: Sets) -> Summary:
        """That of the training functions of some sets."""
        train = sets.train
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        kept = order[train.sizes[order].cumsum(0) <= MOST].sort().values if not train.shared else order[:0]
        chosen = [train[i][1] for i in (kept.tolist() or [0])]
        return Summary(sets.frame, train.shared, train.gridded, chosen)

    def packed(self) -> dict[str, Any]:
        """Plain values and tensors, for the statistics of a run: all layouts one after the other."""
        frame = {**vars(self.frame), "periodic": list(self.frame.periodic)}
        layouts = {name: torch.cat([c[name] for c in self.conditions]) for name in self.conditions[0] if name != "grid"}
        if self.gridded:
            layouts["grid"] = torch.stack([c["grid"] for c in self.conditions])
        sizes = torch.tensor([len(c["coords"]) for c in self.conditions])
        return {"frame": frame, "shared": self.shared, "gridded": self.gridded, "sizes": sizes, "layouts": layouts}

    @staticmethod
    def unpacked(kept: Mapping[str, Any]) -> Summary:
        """The inverse of :meth:`packed`."""
        frame = Frame(**{**kept["frame"], "periodic": tuple(kept["frame"]["periodic"])})
        sizes = kept["sizes"].tolist()
        parts = {name: v.split(sizes) if name != "grid" else v.unbind() for name, v in kept["layouts"].items()}
        rows = [{name: v[i] for name, v in parts.items()} for i in range(len(sizes))]
        return Summary(frame, kept["shared"], kept["gridded"], rows)

    def draw(self, n: int) -> list[Mapping[str, Tensor]]:
        """The sensors of ``n`` functions: those that all share, or those of random training functions."""
        chosen = [0] * n if self.shared else torch.randint(len(self.conditions), (n,)).tolist()
        return [self.conditions[i] for i in chosen]

    def check(self, sets: Sets) -> None:
        """Raise UserError where functions are of another kind than those that were trained."""
        have, wanted = ((s.channels, s.dim, s.frame.periodic) for s in (sets, self))
        if have != wanted or (self.gridded and not sets.train.gridded):
            grids = ["" if on else " and no grid" for on in (sets.train.gridded, self.gridded)]
            raise UserError(
                f"these functions have (values, coordinates, periods) {have}{grids[0]}; what was trained has "
                f"{wanted}{grids[1]}"
            )


def load(o: Data, known: Summary | None = None) -> Sets:
    """The training and held-out functions, in the units of ``known`` ones where there are some. Raises UserError where
    there are none, they are of another kind, or options do not fit."""
    sets = _load(o)
    if known is None:
        return sets
    known.check(sets)
    train, held_out = (Fields(part.functions, known.frame) for part in (sets.train, sets.held_out))
    return replace(sets, train=train, held_out=held_out, frame=known.frame)


def _load(o: Data) -> Sets:
    family = chosen(o)
    if family is not None:
        made = cached(family, o) if family.gridded else make(family, o)
        low, size = (torch.tensor(v, dtype=torch.float64) for v in (family.low, family.size))
        frame = framed(made[: o.train], low, size, family.periodic, o.scale)
        return Sets(Fields(made[: o.train], frame), Fields(made[o.train :], frame), frame, family)
    if o.source in families.names() or not Path(o.source).exists():
        close = nearest(o.source, families.names())
        raise UserError(f"no file or folder {o.source!r}, and no family of that name; {close}")
    dropped: list[Dropped] = []
    stored = FunctionPreparation(vars(o)).open(o.source)
    dropped += [] if stored is None else stored.dropped
    found = kept(read([o.source], layout(vars(o)), dropped) if stored is None else functions(stored), o, dropped)
    if len(found) > 1 and all(bool((f.values == found[0].values[0]).all()) for f in found):
        raise UserError(f"{o.source}: all {len(found)} functions have the value {found[0].values[0].tolist()} "
                        "everywhere, so there is nothing to learn")  # fmt: skip
    train, held = split(found, o)
    coords = torch.cat([f.coords for f in {id(f.coords): f for f in train}.values()]).double()
    low, size = coords.amin(0), (coords.amax(0) - coords.amin(0)).clamp_min(1e-12)
    periodic = (o.periodic,) * len(low)
    if o.periodic and train[0].grid is not None:
        n = torch.tensor(train[0].grid)
        size = size * n / (n - 1)
    frame = framed(train, low, size, periodic, o.scale)
    digest = "" if stored is None else stored.digest
    return Sets(Fields(train, frame), Fields(held, frame), frame, dropped=tuple(dropped), digest=digest)


def chosen(o: Data) -> Family | None:
    """The family that the options name; ``None`` for a file."""
    law = kernel(o.kernel, o.length, o.nu, period=1.0 if o.periodic or o.kernel == "periodic" else None)
    makers = {
        "gp": lambda: families.process(law, o.dim, o.periodic or o.kernel == "periodic"),
        "mogp": lambda: families.mixture(kernel("rbf", 0.1, std=0.4**0.5)),
        "heat": families.heat, "stokes": families.stokes, "burgers": families.burgers, "darcy": families.darcy,
    }  # fmt: skip
    return makers[o.source]() if o.source in makers else None


def make(family: Family, o: Data, seed: int = 0) -> list[Sampled]:
    """The training functions of a family and then the held-out ones. Raises UserError where sensors cannot be
    random."""
    n = o.train + o.held_out
    if o.sensors and family.gridded:
        raise UserError(f"data.sensors={o.sensors}: {o.source} is solved on whole grids; leave data.sensors=0")
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        if o.sensors:
            unit = torch.rand(n, o.sensors, family.dim, dtype=torch.float64).sort(1).values
            grid: Shape | None = None
        else:
            grid = parse(o.grid, family.dim, "data.grid")
            unit = places(grid, family.periodic).expand(n, -1, -1)
        values = family.values(unit, grid).double()
    low, size = (torch.tensor(v, dtype=torch.float64) for v in (family.low, family.size))
    if grid is not None:
        coords, weights = unit[0] * size + low, quadrature(grid, family.periodic)
        return [Sampled(v, coords, grid, weights, f"{o.source}_{i:05d}") for i, v in enumerate(values)]
    rows = ((v, x * size + low) for v, x in zip(values, unit, strict=True))
    return [Sampled(v, x, None, scattered_weights(x), f"{o.source}_{i:05d}") for i, (v, x) in enumerate(rows)]


def cached(family: Family, o: Data) -> list[Sampled]:
    """:func:`make`, with the values kept in a folder for the next time (``data.cache``, else
    ``$XDG_CACHE_HOME/fm_science``, else ``~/.cache/fm_science``)."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fm_science"
    folder = Path(o.cache).expanduser() if o.cache else home
    grid = parse(o.grid, family.dim, "data.grid")
    key = hashlib.sha256(f"{o.source} {grid} {o.train} {o.held_out} {o.sensors} 1".encode()).hexdigest()[:12]
    file = folder / f"{o.source}-{key}.pt"
    if not file.is_file():
        made = make(family, o)
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        torch.save(torch.stack([f.values for f in made]).float(), part)
        os.replace(part, file)
        return made
    values = torch.load(file, weights_only=True).double()
    low, size = (torch.tensor(v, dtype=torch.float64) for v in (family.low, family.size))
    coords, weights = places(grid, family.periodic) * size + low, quadrature(grid, family.periodic)
    return [Sampled(v, coords, grid, weights, f"{o.source}_{i:05d}") for i, v in enumerate(values)]


def kept(found: list[Sampled], o: Data, dropped: list[Dropped]) -> list[Sampled]:
    """The functions that are learned from: of one number of channels and coordinates, and on grids only where some are
    on a grid and missing values are to be dropped; those are listed in ``dropped``. Raises UserError where the numbers
    differ."""
    kinds = {(f.values.shape[1], f.coords.shape[1]) for f in found}
    if len(kinds) > 1:
        raise UserError(f"the functions in {o.source} differ in (channels, coordinates): {sorted(kinds)}")
    whole = [f for f in found if f.grid is not None]
    if o.missing == "drop" and whole and len(whole) < len(found):
        log.warning("%s: %d of %d functions have missing values and are left out (data.missing=keep keeps them)",
                    o.source, len(found) - len(whole), len(found))  # fmt: skip
        dropped += [Dropped(o.source, f.name, "missing values") for f in found if f.grid is None]
        found = whole
    return found


def split(found: list[Sampled], o: Data) -> tuple[list[Sampled], list[Sampled]]:
    """Training and held-out functions, in an order that is fixed: at least one of each where there are two or more."""
    if not o.share:
        return found, found
    if len(found) < 2:
        log.warning("%s holds one function: it is trained and held out", o.source)
        return found, found
    held = min(len(found) - 1, max(1, round(o.share * len(found))))
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
    return [found[i] for i in order[held:]], [found[i] for i in order[:held]]


def framed(functions: Sequence[Sampled], low: Tensor, size: Tensor, periodic: tuple[bool, ...], scale: str) -> Frame:
    """The frame whose values are scaled over these functions."""
    values = torch.cat([f.values for f in functions]).double()
    channels = values.shape[1]
    shift, spread = torch.zeros(channels).double(), torch.ones(channels).double()
    if scale == "standard":
        shift, spread = values.mean(0), values.std(0)
    if scale == "range":
        top, bottom = values.amax(0), values.amin(0)
        shift, spread = (top + bottom) / 2, (top - bottom) / 2
    return Frame(low, size, periodic, shift, torch.where(spread > 0, spread, 1.0))


def decode(frame: Frame, state: Tensor, context: Context) -> list[Sampled]:
    """States ``(B, N, C)`` to functions without their padding, in the units of the source."""
    coords, weights = context.cond["coords"].cpu(), context.cond["weights"].cpu()
    box, found = frame.box(coords), []
    for i, real in enumerate(context.mask.cpu()):
        grid = tuple(context.cond["grid"][i].tolist()) if "grid" in context.cond else None
        values = frame.outside(state[i])[real].float()
        found.append(Sampled(values, box[i][real], grid, weights[i][real].double(), f"sample_{i:04d}"))
    return found
