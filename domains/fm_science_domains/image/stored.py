"""Images that ``fm-science prepare`` has read: kept in one file, as levels of one byte.

Pictures of more than 8 bits need ``data.white``, since the level that is white is otherwise found over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from fm_science.errors import UserError
from fm_science.files import Dropped, reason_of
from fm_science.prepared import TEXT, Column, Plan, Preparation, Prepared, Record, below, text

from . import formats
from .files import Picture, Stack, images_in, read_file
from .formats import Page

DEEP = "more than 8 bits: say which level is white, data.white=LEVEL"


class ImagePreparation(Preparation[tuple[Path, str]]):
    """Pictures and arrays of images as records, one an image. A thing is a file, and its name below the folder that was
    given."""

    domain = "image"
    reads = ("size", "background", "white")
    columns: Mapping[str, Column] = {
        "levels": Column("uint8"), "shape": Column("int32"), "label": Column("int64"), "top": Column("int32"),
        "white": Column("int32"), "array": Column("uint8"), "file": TEXT, "folder": TEXT, "name": TEXT,
    }  # fmt: skip

    def plan(self, inputs: Sequence[Path]) -> Plan[tuple[Path, str]]:
        files = images_in(inputs)
        return Plan(files, [(file, below(file, inputs)) for file in files], len(files))

    def convert(self, thing: tuple[Path, str]) -> list[Record | Dropped]:
        file, name = thing
        o = self.options
        found: list[Record | Dropped] = []
        try:
            for one in read_file(file, o["size"], o["background"], o["white"]):
                found += _array(one, name) if isinstance(one, Stack) else [self._picture(one, file, name)]
        except UserError as error:
            return [Dropped(str(file), "", reason_of(error, file))]
        return found

    def _picture(self, page: Page, file: Path, name: str) -> Record | Dropped:
        values, white, o = page.values, 0, self.options
        if values.dtype != np.uint8:
            if o["white"] is None:
                return Dropped(str(file), "" if page.name == file.stem else page.name, DEEP)
            white = formats.white_level([values], o["white"], str(file))
            values = formats.eight_bits(values, white)
        levels = formats.scaled(values, o["size"]).contiguous().numpy()
        return _record(levels, page.label, 255, white, False, name, file.parent.name, page.name)


def _array(stack: Stack, file: str) -> list[Record | Dropped]:
    """The images of an array file; their labels are the values that it holds."""
    labels = [None] * len(stack) if stack.labels is None else [int(stack.classes[k]) for k in stack.labels.tolist()]
    return [
        _record(levels.numpy(), label, stack.top, stack.white or 0, True, file, "", name)
        for levels, label, name in zip(stack.levels, labels, stack.names, strict=True)
    ]


def _record(
    levels: np.ndarray, label: int | None, top: int, white: int, array: bool, file: str, folder: str, name: str
) -> Record:
    return {
        "levels": levels.reshape(-1), "shape": np.array(levels.shape, np.int32),
        "label": np.array([] if label is None else [label], np.int64), "top": np.array([top], np.int32),
        "white": np.array([white], np.int32), "array": np.array([array], np.uint8), "file": text(file),
        "folder": text(folder), "name": text(name),
    }  # fmt: skip


def pieces(kept: Prepared) -> tuple[list[Stack], list[Picture], int | None]:
    """The images of a prepared file: arrays as a stack each, pictures, and the level that was white in deep ones."""
    arrays, files = kept.flat("array").tolist(), kept.texts("file")
    names, folders = kept.texts("name"), kept.texts("folder")
    numbers = [i for i in range(len(kept)) if arrays[i]]
    stacks = [_stack(kept, list(group), names) for _, group in groupby(numbers, key=lambda i: files[i])]
    pictures = [
        Picture(_levels(kept, i), folders[i], next(iter(kept.get("label", i).tolist()), None), names[i])
        for i in range(len(kept)) if not arrays[i]
    ]  # fmt: skip
    white = int(kept.flat("white").max(initial=0))
    return stacks, pictures, white or None


def _levels(kept: Prepared, i: int) -> torch.Tensor:
    return torch.from_numpy(kept.get("levels", i)).reshape(kept.get("shape", i).tolist())


def _stack(kept: Prepared, numbers: Sequence[int], names: Sequence[str]) -> Stack:
    """The images of one array file."""
    levels, top = torch.stack([_levels(kept, i) for i in numbers]), int(kept.flat("top")[numbers[0]])
    mine = tuple(names[i] for i in numbers)
    values = torch.from_numpy(np.concatenate([kept.get("label", i) for i in numbers]))
    if not len(values):
        return Stack(levels, None, top, mine)
    known, labels = values.unique(return_inverse=True)
    return Stack(levels, labels, top, mine, tuple(map(str, known.tolist())))
