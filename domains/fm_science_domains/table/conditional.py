"""Given cells: training that holds some of each row, and rows of the user whose empty cells are to be filled.

A cell is one of three things. It moves from noise to data; it is given, frozen at its value; or it is not there, frozen
and said to be so. In training the cells that are missing are not there, and in a share of the rows a random subset of
the others is given, so that one network knows the law of all cells and of any of them given any others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError
from fm_science.spaces.curved import wrap
from fm_science.state import Context

from .alignment import aligned, values
from .data import Summary
from .encoding import NUMBERS, Encoding, Parts
from .files import Frame, Numbers, Series, read
from .rows import Filled


@dataclass(frozen=True)
class HeldCells:
    """Which cells of training rows are given, and how rows are disturbed; an :class:`Inpainting` chooses by it.

    Args:
        encoding: what a state is.
        share: of the rows of which a random part is given.
        blur: noise on numbers in spreads, and on angles in radians.
    """

    encoding: Encoding
    share: float
    blur: float = 0.0

    def __call__(self, x1: Parts, context: Context) -> tuple[Parts, Context]:
        observed = context.cond["observed"].bool()
        x1 = self._disturbed(x1, observed)
        rate = torch.rand(len(observed), 1, device=observed.device)
        chosen = torch.rand(len(observed), 1, device=observed.device) < self.share
        given = observed & chosen & (torch.rand(observed.shape, device=observed.device) < rate)
        free = observed & ~given
        free = torch.where(free.any(1, keepdim=True), free, observed)  # some cell is always learned
        return x1, replace(context, free=self.encoding.by_part(free), known=x1)

    def _disturbed(self, x1: Parts, observed: Tensor) -> Parts:
        """Whole numbers with a dither, and all that is continuous with noise; cells that are not there stay zero."""
        there, moved = self.encoding.by_part(observed), dict(x1)
        for name, x in x1.items():
            if name == NUMBERS:
                noisy = self.encoding.dithered(x) + self.blur * torch.randn_like(x)
            elif self.encoding.columns[self.encoding.others[name]].classes:
                continue
            else:
                noisy = wrap(x + self.blur * torch.randn_like(x))
            moved[name] = torch.where(there[name][..., None], noisy, 0.0)
        return moved


@dataclass(frozen=True, eq=False)
class Given:
    """Rows of the user, some of whose cells are empty.

    Attributes:
        values: ``(n, C)``, NaN where a cell is to be filled.
        header: the columns of the file in order, then those that it lacks.
        texts: the cells as they were written, by name of the column; ``None`` where empty.
        source: the file.
    """

    values: Numbers
    header: tuple[str, ...]
    texts: dict[str, Sequence[str | None]]
    source: str

    def __len__(self) -> int:
        return len(self.values)

    def filled(self, row: int, draw: int, draws: int) -> Filled:
        """Which row of the file a decoded row is."""
        texts = {name: cells[row] for name, cells in self.texts.items()}
        kept = {name: text for name, text in texts.items() if text is not None}
        return Filled(row, draw, draws, self.header, kept)

    def state(self, encoding: Encoding, rows: Sequence[int]) -> tuple[Parts, Parts]:
        """The known values of rows and which of their cells are free, both by part."""
        state, there = encoding.encode(self.values[list(rows)])
        return {k: v.float() for k, v in state.items()}, encoding.by_part(~there)


def read_given(file: str, summary: Summary) -> Given:
    """The rows of a file whose empty cells are to be filled.

    Raises:
        UserError: where the file cannot be read, holds classes or numbers that the columns cannot, or leaves the
            condition empty.
    """
    encoding = summary.encoding
    frame = read(file)
    names = [c.name for c in encoding.columns]
    if not (frame.header and summary.header) and len(frame.series) == len(names):
        frame = aligned(frame, names, header=False)
    known = {s.name: s for s in frame.series}
    wanted = [c.name for c in encoding.columns if c.learned]
    if not set(known) & set(wanted):
        raise UserError(f"given={file} has none of the columns of this run: {', '.join(wanted)}")
    empty = Series("", np.full(len(frame), np.nan), None)
    whole = [known.get(c.name, replace(empty, name=c.name)) for c in encoding.columns]
    found = values(Frame(tuple(whole), True, f"given={file}"), encoding)
    if encoding.condition_index is not None and bool(np.isnan(found[:, encoding.condition_index]).any()):
        raise UserError(
            f"given={file}: the column {encoding.condition!r} is the condition of this run and cannot be filled; give "
            "its values, or train without data.condition"
        )
    lacking = tuple(c.name for c in encoding.columns if c.kind != "ignore" and c.name not in known)
    return Given(found, frame.names + lacking, {name: s.labels for name, s in known.items()}, file)
