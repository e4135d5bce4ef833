"""Molecules as training data: the shipped ones, QM9, drug-like SMILES with force-field conformers, or the user's own.

Every source becomes one :class:`~.pack.Pack`; options filter it; a :class:`Library` has the three parts with what was
derived from them: the vocabulary of classes, the distribution of sizes, the valences that occur, the standard deviation
of properties. A data point is the state of a molecule (see ``vocabulary``) and its conditions, one number per property.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fm_science.errors import UserError, nearest

from . import drugs, fixture, qm9, sdf, stored
from .cache import Dropped, Prepared, cached, digest, folder, gather, summary
from .collection import Library, Molecules, Summary, items
from .molecule import rdkit
from .options import Data
from .pack import Pack, Packed
from .vocabulary import Vocabulary

__all__ = ["Data", "Library", "Molecules", "Summary", "load"]
log = logging.getLogger(__name__)
Found = tuple[Packed, list[Dropped]]


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
    kinds: set[int] = set()
    charges: set[int] = set()
    for piece in pack.pieces():
        kinds.update(np.unique(piece.atoms).tolist())
        charges.update(np.unique(piece.charges).tolist())
    vocabulary = Vocabulary.of(kinds, charges, pack.hydrogens)
    if known is not None:
        vocabulary = known.covering(vocabulary, f"the molecules of data.source={options.source}")
    parts = [pack.take(pack.part == k) for k in range(3)]
    parts = [part if len(part) else parts[0] for part in parts]
    counts = "{} molecules to train, {} to validate, {} to test".format(*map(len, parts))
    log.info("%s: %s; %d left out%s", options.source, counts, len(dropped), f" ({summary(dropped)})" if dropped else "")
    sets = [items(part, vocabulary) for part in parts]
    sha = pack.prepared.digest if isinstance(pack, stored.StoredPack) else ""
    return Library(sets[0], sets[1], sets[2], vocabulary, tuple(dropped), options.source, sha)


def _source(options: Data) -> Found:
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
        pack = stored.StoredPack.of(kept)
        return pack.parted(_parts(pack.smiles)), list(kept.dropped)
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
    """The same molecules in parts by :func:`_parts`."""
    pack, dropped = prepared
    return pack.parted(_parts(pack.smiles)), dropped


def _parts(smiles: Iterable[str]) -> np.ndarray:
    """``(M,)`` int8: parts by a hash of the SMILES: one in ten to validate (1), one in ten to test (2). With three
    different molecules or more no part is empty."""
    values = np.array([zlib.crc32(str(text).encode()) for text in smiles], np.int64)
    part = np.select([values % 10 == 0, values % 10 == 1], [1, 2], 0).astype(np.int8)
    order = np.unique(values)
    for k, value in enumerate(order[:3] if len(order) >= 3 else []):
        if (1, 2, 0)[k] not in part:
            part[values == value] = (1, 2, 0)[k]
    return part


def _cut(pack: Packed, options: Data) -> Found:
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
        made_of = np.concatenate([_made_of(piece, known) for piece in pack.pieces()])
        keep(made_of, lambda i: f"elements beyond {options.elements}")
    if options.max_atoms:
        keep(pack.lengths <= options.max_atoms, lambda i: f"more than {options.max_atoms} atoms")
    return pack, dropped


def _made_of(pack: Pack, elements: list[int]) -> np.ndarray:
    """``(M,)`` bool: which molecules have these elements alone."""
    owner = np.repeat(np.arange(len(pack)), pack.lengths)
    return np.bincount(owner[~np.isin(pack.atoms, elements)], minlength=len(pack)) == 0


def _limited(pack: Packed, limit: int) -> Packed:
    """With at most ``limit`` training molecules, drawn with a fixed seed."""
    train = torch.from_numpy(np.flatnonzero(pack.part == 0))
    if not 0 < limit < len(train):
        return pack
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    chosen = np.zeros(len(pack), bool)
    chosen[train[order[:limit]].numpy()] = True
    return pack.take(chosen | (pack.part != 0))
