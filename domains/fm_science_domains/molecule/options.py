"""The options of the data of molecules."""

from __future__ import annotations

from dataclasses import dataclass

from fm_science.domain import option


@dataclass(frozen=True)
class Data:
    """Which molecules to learn from, and how many at a time."""

    source: str = option(
        "fixture",
        "fixture (10,000 molecules of QM9, shipped), qm9, drugs, or a path: SDF, XYZ, a folder of them, "
        ".smi, or a prepared file",
    )
    hydrogens: bool = option(False, "whether hydrogens are explicit atoms; else they are implied by valence")
    max_atoms: int = option(0, "leave out larger molecules; 0: none", unit="atoms", low=0)
    elements: str | None = option(None, "leave out molecules with other elements than these, such as H,C,N,O,F")
    limit: int = option(0, "use at most this many training molecules; 0: all", low=0)
    conformers: int = option(10_000, "molecules to embed in 3D if the source is drugs or a .smi file", low=1)
    batch: int = option(64, "molecules per batch", low=1)
    budget: int = option(0, "at most this many padded pairs of atoms per batch; 0: no limit", low=0)
    workers: int = option(0, "processes that load data; molecules are in memory, so 0 is fast", low=0)
    processes: int = option(0, "processes that prepare data the first time; 0: one per core", low=0)
    cache: str | None = option(None, "folder for prepared data; none: $FM_SCIENCE_CACHE, else ~/.cache/fm-science")
