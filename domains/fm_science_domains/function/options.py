"""The options of the data of functions."""

from __future__ import annotations

from dataclasses import dataclass

from fm_science.domain import option


@dataclass(frozen=True)
class Data:
    """Which functions to learn from, and how many at a time."""

    source: str = option(
        "gp", "gp, mogp, heat, stokes, burgers, darcy, a file or folder of .npz, .npy, .csv or .nc, or a prepared file"
    )
    grid: int | str = option(64, "sensors of a family on each axis, such as 64 or 32x48")
    sensors: int = option(
        0, "with a positive value, this many random sensors for each function instead of a grid", low=0
    )
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
        "drop", "functions with missing values on a grid: left out, or kept with their own sensors",
        choices=("drop", "keep"),
    )  # fmt: skip
    share: float = option(0.1, "held-out share of a file; 0: all are both trained and held out", low=0, high=0.9)
    scale: str = option("standard", "values inside: mean 0 and standard deviation 1, from -1 to 1, or unchanged",
                        choices=("standard", "range", "none"))  # fmt: skip
    cache: str | None = option(None, "folder for solutions of equations; none: the user's cache")
    batch: int = option(64, "functions per batch", low=1)
    workers: int = option(0, "processes that prepare batches", low=0)
