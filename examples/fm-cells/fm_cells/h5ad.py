"""AnnData files (.h5ad), read by h5py: annotations of cells in ``obs``, coordinates in ``obsm`` or ``X``.

The layout is the one that the anndata documentation specifies: each annotation is an array, or a group of categories
and codes; ``X`` is dense or sparse by rows. Only what is asked for is read, and nothing in the file is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fm_science import UserError

if TYPE_CHECKING:
    import h5py

USUAL = "X_pca"  # the array that is taken where none is named


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """An open file. Raises UserError where h5py is missing, or the file is none of that kind."""
    if find_spec("h5py") is None:
        raise UserError(f"{path}: .h5ad files need h5py: pip install 'fm-cells[h5ad]'")
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} cannot be read as an .h5ad file: {error}") from error
    with file:
        if not isinstance(file.get("obs"), h5py.Group):
            raise UserError(f"{path} has no table 'obs' of annotations: expected a file that anndata wrote")
        yield Archive(path, file)


class Archive:
    """What is read of an open file.

    Args:
        path: its name, for messages.
        file: the open file.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path, self.file, self.obs = path, file, file["obs"]

    @property
    def annotations(self) -> list[str]:
        """The names of the annotations of cells."""
        return [name for name in self.obs if name not in ("__categories", self.obs.attrs.get("_index"))]

    def annotation(self, name: str) -> NDArray[Any]:
        """The values of an annotation, ``(n,)``; unknown ones are NaN or "unknown"."""
        item = self.obs[name]
        group = not isinstance(item, _dataset())
        if group and "categories" in item:
            return _decoded(item["categories"], item["codes"][()])
        if group and "values" in item and "mask" in item:
            return np.where(item["mask"][()], np.nan, item["values"][()].astype(float))
        older = self.obs.get("__categories")
        if older is not None and name in older:
            return _decoded(older[name], item[()])
        return _texts(item[()])

    def embedding(self, wanted: str | None) -> str:
        """The name of the array of coordinates. Raises UserError where it is not there, or none can be guessed."""
        known = [*self.file.get("obsm", {}), *(["X"] if "X" in self.file else [])]
        key = wanted or USUAL
        if key not in known:
            raise UserError(f"{self.path}: no coordinates {key!r}; say which by data.embedding=NAME, one of: "
                            f"{', '.join(known)}")  # fmt: skip
        return key

    def coordinates(self, key: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
        """Coordinates ``(n, d)``, and their names. Raises UserError where they are no table of numbers."""
        if key == "X":
            values = self._matrix(self.file["X"])
            names = self.file["var"]
            return values, tuple(map(str, _texts(names[names.attrs.get("_index", "_index")][()])))
        item = self.file["obsm"][key]
        if not isinstance(item, _dataset()) or len(item.shape) != 2:
            raise UserError(f"{self.path}: obsm/{key} is no plain array; name another one by data.embedding=NAME")
        values = np.asarray(item[()], dtype=float)
        return values, tuple(f"{key.removeprefix('X_')}{k + 1}" for k in range(values.shape[1]))

    def _matrix(self, item: Any) -> NDArray[np.float64]:
        """A dense matrix from one that may be sparse."""
        from scipy.sparse import csc_matrix, csr_matrix

        if isinstance(item, _dataset()):
            return np.asarray(item[()], dtype=float)
        make = csc_matrix if item.attrs["encoding-type"] == "csc_matrix" else csr_matrix
        parts = (item["data"][()], item["indices"][()], item["indptr"][()])
        return np.asarray(make(parts, shape=tuple(item.attrs["shape"])).todense(), dtype=float)


def _dataset() -> type:
    """The class of arrays in a file, in contrast to groups of them."""
    import h5py

    return h5py.Dataset


def _decoded(categories: Any, codes: NDArray[Any]) -> NDArray[Any]:
    """Categories by their codes; -1 is unknown."""
    names = _texts(categories[()])
    unknown = np.array(["unknown"]) if names.dtype.kind in "OUS" else np.array([np.nan])
    return np.concatenate([names, unknown])[codes]


def _texts(values: NDArray[Any]) -> NDArray[Any]:
    """The same values, bytes as text."""
    return (
        np.array([v.decode() if isinstance(v, bytes) else v for v in values]) if values.dtype.kind in "OS" else values
    )
