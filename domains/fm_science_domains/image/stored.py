"""Images that ``fm-science prepare`` has read: kept in one file as levels of one byte, and mapped into
memory from there.

Pictures of more than 8 bits need ``data.white``, since the level that is white is otherwise found over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from fm_science.errors import UserError
from fm_science.files import Dropped, reason_of
from fm_science.prepared import TEXT, Column, Plan, Preparation, Prepared, Record, Texts, below, text

from . import formats
from .files import images_in, read_file
from .formats import Page
from .stack import Stack, StoredLevels, classes_of, one_shape

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
        for levels, label, name in zip(stack.levels[:], labels, stack.names, strict=True)
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


def stacks(kept: Prepared, classes: Sequence[str] | None) -> list[Stack]:
    """The images of a prepared file, which stay in it: a stack for each array, and one of all pictures."""
    files, _ = kept.coded("file")
    arrays = np.flatnonzero(kept.flat("array"))
    cuts = np.flatnonzero(np.diff(files[arrays])) + 1
    found = [_array_stack(kept, numbers) for numbers in np.split(arrays, cuts) if len(numbers)]
    pictures = np.flatnonzero(~np.array(kept.flat("array"), bool))
    return [*found, _picture_stack(kept, pictures, classes)] if len(pictures) else found


def _event(kept: Prepared, numbers: np.ndarray) -> tuple[int, int, int]:
    """The common C, H and W of records."""
    shapes = kept.flat("shape").reshape(-1, 3)[numbers]
    return one_shape([tuple(row) for row in np.unique(shapes, axis=0).tolist()])


def _inside(kept: Prepared, numbers: np.ndarray) -> torch.Tensor:
    """The labels of those records that have one, int64."""
    ends = kept.offsets("label")
    some = numbers[ends[numbers + 1] > ends[numbers]]
    return torch.from_numpy(np.array(kept.flat("label")[ends[some]]))


def _array_stack(kept: Prepared, numbers: np.ndarray) -> Stack:
    """The images of one array file; its classes are the values of its labels, in order."""
    top, values = int(kept.flat("top")[numbers[0]]), _inside(kept, numbers)
    levels, names = StoredLevels(kept, numbers, _event(kept, numbers)), Texts(kept, "name", numbers)
    if not len(values):
        return Stack(levels, None, top, names)
    known, labels = values.unique(return_inverse=True)
    return Stack(levels, labels, top, names, tuple(map(str, known.tolist())))


def _picture_stack(kept: Prepared, numbers: np.ndarray, classes: Sequence[str] | None) -> Stack:
    """All pictures."""
    codes, folders = kept.coded("folder")
    used, lying = torch.from_numpy(codes[numbers]).unique(return_inverse=True)
    labels, found = classes_of([folders[k] for k in used.tolist()], lying, _inside(kept, numbers), classes)
    levels, white = StoredLevels(kept, numbers, _event(kept, numbers)), int(kept.flat("white").max(initial=0))
    return Stack(levels, labels, 255, Texts(kept, "name", numbers), found, white or None)
