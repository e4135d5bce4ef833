"""Molecules as training data: the shipped ones, QM9, drug-like SMILES with force-field conformers, or the user's own.

Every source becomes one :class:`~.pack.Pack`; options filter it; a :class:`Library` has the three parts with what was
derived from them: the vocabulary of classes, the distribution of sizes, the valences that occur, the standard deviation
of properties. A data point is the state of a molecule (see ``vocabulary``) and its conditions, one number per property.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_science.domain import option
from fm_science.errors import UserError, nearest

from . import drugs, fixture, qm9, sdf, stored
from .cache import Dropped, Prepared, cached, digest, folder, gather, summary
from .molecule import Molecule, rdkit
from .pack import PARTS, Pack, square
from .vocabulary import Vocabulary

log = logging.getLogger(__name__)
Item = tuple[dict[str, Tensor], dict[str, Tensor]]


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


class Molecules(Dataset):
    """A part of the data as items ``(state, conditions)``, encoded once. sizes: (len,) int64, atoms of each; pack: the
    molecules themselves."""

    def __init__(self, pack: Pack, vocabulary: Vocabulary) -> None:
        self.pack, self.vocabulary = pack, vocabulary
        self.sizes = torch.from_numpy(pack.lengths.astype(np.int64))
        self._atoms = _lookup(pack.atoms, vocabulary.elements)
        self._charges = _lookup(pack.charges, vocabulary.charges)
        self._orders = _lookup(pack.orders, vocabulary.bonds)
        self._places = _centred(pack)

    def __len__(self) -> int:
        return len(self.pack)

    def __getitem__(self, index: int) -> Item:
        i = range(len(self))[index]
        first, n, bond = self.pack.first[i], int(self.pack.lengths[i]), self.pack.first_bond[i]
        atoms, bonds = slice(first, first + n), slice(bond, bond + self.pack.counts[i])
        state = {
            "positions": torch.from_numpy(self._places[atoms]).clone(),
            "atoms": torch.from_numpy(self._atoms[atoms]).clone(),
            "bonds": square(self.pack.ends[bonds], self._orders[bonds], n),
            "charges": torch.from_numpy(self._charges[atoms]).clone(),
        }
        return state, {name: torch.tensor(float(v[i])) for name, v in self.pack.properties.items()}


@dataclass(frozen=True, eq=False)
class Library:
    """All molecules of a domain, in three parts, and what was derived from the training part.

    Attributes:
        train, validation, test: the parts.
        vocabulary: the classes that occur.
        drops: molecules that were left out.
        source: where the molecules come from.
        digest: of a prepared file that they come from.
    """

    train: Molecules
    validation: Molecules
    test: Molecules
    vocabulary: Vocabulary
    drops: tuple[Dropped, ...] = ()
    source: str = "fixture"
    digest: str = ""

    def part(self, split: str) -> Molecules:
        """A part by its name. Raises KeyError for an unknown one."""
        if split not in PARTS:
            raise KeyError(f"unknown part {split!r} of the data; {nearest(split, PARTS)}")
        return getattr(self, split)

    def molecules(self, split: str, n: int = 0, seed: int = 0) -> list[Molecule]:
        """``n`` different molecules of a part in random order, drawn with ``seed``; fewer if there are fewer, and all
        of them in their own order if ``n`` is 0."""
        pack = self.part(split).pack
        if n == 0:
            return list(pack)
        order = torch.randperm(len(pack), generator=torch.Generator().manual_seed(seed))[:n]
        return [pack[int(i)] for i in order]

    @cached_property
    def sizes_histogram(self) -> Tensor:
        """(largest + 1,) how many training molecules have each number of atoms."""
        return torch.bincount(self.train.sizes)

    @cached_property
    def valences(self) -> dict[tuple[int, int], frozenset[int]]:
        """The sums of bond orders that occur in the training part, by (atomic number, formal charge). If hydrogens are
        implied, bonds to them are not counted."""
        pack = self.train.pack
        seen = np.unique(np.stack([pack.atoms.astype(int), pack.charges.astype(int), pack.valences]), axis=1).T.tolist()
        return {(z, q): frozenset(v for a, b, v in seen if (a, b) == (z, q)) for z, q, _ in seen}

    @cached_property
    def properties(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each property over the training part; without NaN values."""
        found = self.train.pack.properties
        return {name: (float(np.nanmean(v)), float(np.nanstd(v))) for name, v in found.items()}

    @cached_property
    def smiles(self) -> frozenset[str]:
        """Canonical SMILES of the training part, without stereo and hydrogens, as the installed RDKit writes them."""
        kept = self.train.pack.smiles.tolist()
        return frozenset(kept if self.source != "fixture" else fixture.canonical(kept))


@dataclass(frozen=True, eq=False)
class Summary:
    """What sampling needs to know about the training molecules, and the small part of what metrics need.

    Attributes:
        vocabulary: the classes.
        spread: standard deviation of a coordinate, angstrom.
        histogram: ``(M + 1,)`` how many training molecules have each number of atoms.
        properties: mean and standard deviation of each property.
        valences: the sums of bond orders that occur, by (atomic number, formal charge).
    """

    vocabulary: Vocabulary
    spread: float
    histogram: Tensor
    properties: Mapping[str, tuple[float, float]]
    valences: Mapping[tuple[int, int], frozenset[int]]

    @staticmethod
    def of(library: Library) -> Summary:
        """From the training part of a library."""
        return Summary(
            library.vocabulary, spread(library), library.sizes_histogram, library.properties, library.valences
        )  # fmt: skip

    def packed(self) -> dict[str, Any]:
        """Plain values and tensors, for the statistics of a run."""
        valences = [[z, q, sorted(found)] for (z, q), found in self.valences.items()]
        return {
            "vocabulary": vars(self.vocabulary), "spread": self.spread, "histogram": self.histogram,
            "properties": {name: list(known) for name, known in self.properties.items()}, "valences": valences,
        }  # fmt: skip

    @staticmethod
    def unpacked(kept: Mapping[str, Any]) -> Summary:
        """The inverse of :meth:`packed`."""
        words: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in kept["vocabulary"].items()}
        properties = {name: (mean, std) for name, (mean, std) in kept["properties"].items()}
        valences = {(z, q): frozenset(found) for z, q, found in kept["valences"]}
        return Summary(Vocabulary(**words), kept["spread"], kept["histogram"], properties, valences)


def spread(library: Library, most: int = 1000) -> float:
    """Standard deviation of a coordinate over training molecules, angstrom."""
    count = len(library.train.sizes)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].tolist()
    return float(torch.cat([library.train[i][0]["positions"] for i in chosen]).square().mean().sqrt().clamp_min(0.1))


def load(options: Data | None = None, known: Vocabulary | None = None) -> Library:
    """The molecules of the options, in the classes of a ``known`` vocabulary if there is one.

    Published splits are kept (QM9, and the shipped molecules, which are a part of it); other sources are split by a
    hash of the SMILES, so that all conformers of a molecule are in one part: one in ten to validate, one to test.

    Raises:
        UserError: when the source is unknown, cannot be read, nothing usable remains, or molecules have classes that
            are not known.
    """
    options = options or Data()
    pack, dropped = _source(options)
    pack, more = _cut(pack, options)
    dropped = [*dropped, *more]
    if not len(pack):
        raise UserError(f"no usable molecule in {options.source}: {summary(dropped)}")
    pack = _limited(pack, options.limit)
    vocabulary = Vocabulary.of(pack.atoms.tolist(), pack.charges.tolist(), pack.hydrogens)
    if known is not None:
        vocabulary = known.covering(vocabulary, f"the molecules of data.source={options.source}")
    parts = [pack.take(pack.part == k) for k in range(3)]
    parts = [part if len(part) else parts[0] for part in parts]
    counts = "{} molecules to train, {} to validate, {} to test".format(*map(len, parts))
    log.info("%s: %s; %d left out%s", options.source, counts, len(dropped), f" ({summary(dropped)})" if dropped else "")
    sets = [Molecules(part, vocabulary) for part in parts]
    kept = stored.opened(vars(options))
    digest = "" if kept is None else kept.digest
    return Library(sets[0], sets[1], sets[2], vocabulary, tuple(dropped), options.source, digest)


def _source(options: Data) -> Prepared:
    """The pack of the source with all its hydrogens, and what was left out."""
    place, hands = folder(options.cache), options.processes
    if options.source == "fixture":
        return fixture.shipped(), []
    if options.source == "qm9":
        qm9.files()  # raises before anything else
        return cached(place, f"qm9-{digest('1.0.3', rdkit())}", lambda: qm9.prepare(hands))
    if options.source == "drugs":
        return _folded(drugs.molsets(options.conformers), options)
    path = Path(options.source).expanduser()
    if not path.exists():
        raise UserError(
            f"data.source={options.source}: no such file or folder, and no source of that name; "
            f"{nearest(options.source, ('fixture', 'qm9', 'drugs'))}"
        )
    kept = stored.opened(vars(options))
    if kept is not None:
        return _split((stored.pack(kept), list(kept.dropped)))
    if drugs.is_smiles(path):
        return _folded(drugs.read_smiles(path, options.conformers), options)
    files = sdf.files([path])
    stamp = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]

    found = partial(sdf.read, files, hands, named=[path])
    name = f"sdf-{digest(sdf.RECIPE, stamp, rdkit())}"
    return cached(place, name, lambda: _split(gather(found(), lambda *_: 0, options.source)))


def _folded(lines: list[tuple[str, str]], options: Data) -> Prepared:
    """Conformers of SMILES, cached."""
    name = f"smiles-{digest(drugs.RECIPE, lines, rdkit())}"
    fold = partial(drugs.fold, lines, options.processes)
    return cached(folder(options.cache), name, lambda: _split(gather(fold(), lambda *_: 0, options.source)))


def _split(prepared: Prepared) -> Prepared:
    """The same molecules in parts by a hash of their SMILES: one in ten to validate (1), one in ten to test (2). With
    three different molecules or more no part is empty."""
    pack, dropped = prepared
    values = {text: zlib.crc32(text.encode()) for text in pack.smiles.tolist()}
    part = {text: {0: 1, 1: 2}.get(value % 10, 0) for text, value in values.items()}
    order = sorted(values, key=lambda text: values[text])
    for k, text in enumerate(order[:3] if len(order) >= 3 else []):
        if (1, 2, 0)[k] not in part.values():
            part[text] = (1, 2, 0)[k]
    return replace(pack, part=np.array([part[text] for text in pack.smiles.tolist()], np.int8)), dropped


def _cut(pack: Pack, options: Data) -> tuple[Pack, list[Dropped]]:
    """The pack that the options select, and what they leave out."""
    dropped: list[Dropped] = []

    def keep(good: np.ndarray, reason: Callable[[int], str]) -> None:
        nonlocal pack
        dropped.extend(Dropped(options.source, str(pack.names[i]), reason(int(i))) for i in np.flatnonzero(~good))
        pack = pack.take(good) if not good.all() else pack

    if options.hydrogens and not pack.hydrogens:
        raise UserError(f"{options.source} has molecules without hydrogens: add them, or say data.hydrogens=false")
    if not options.hydrogens:
        pack = pack.without_hydrogens()
    keep(pack.lengths > 0, lambda i: "no heavy atom")
    if options.elements:
        known = sdf.elements(options.elements)
        strange = ~np.isin(pack.atoms, known)
        owner = np.repeat(np.arange(len(pack)), pack.lengths)
        keep(np.bincount(owner[strange], minlength=len(pack)) == 0, lambda i: f"elements beyond {options.elements}")
    if options.max_atoms:
        keep(pack.lengths <= options.max_atoms, lambda i: f"more than {options.max_atoms} atoms")
    return pack, dropped


def _limited(pack: Pack, limit: int) -> Pack:
    """With at most ``limit`` training molecules, drawn with a fixed seed."""
    train = torch.from_numpy(np.flatnonzero(pack.part == 0))
    if not 0 < limit < len(train):
        return pack
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    chosen = np.zeros(len(pack), bool)
    chosen[train[order[:limit]].numpy()] = True
    return pack.take(chosen | (pack.part != 0))


def _lookup(values: np.ndarray, known: tuple[int, ...]) -> np.ndarray:
    """Class numbers of values, int64."""
    table: Mapping[int, int] = {value: k for k, value in enumerate(known)}
    kinds, inverse = np.unique(values.astype(np.int64), return_inverse=True)
    return np.array([table[int(kind)] for kind in kinds], np.int64)[inverse]


def _centred(pack: Pack) -> np.ndarray:
    """(A, 3) float32 positions, the centre of each molecule at the origin."""
    if not len(pack):
        return pack.positions
    centre = np.add.reduceat(pack.positions.astype(np.float64), pack.first) / pack.lengths[:, None]
    return (pack.positions - np.repeat(centre, pack.lengths, axis=0)).astype(np.float32)
