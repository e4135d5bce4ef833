"""Make the shipped molecules: ``python tools/make_molecule_fixture.py`` with the package ``qm9pack`` installed.

Kept are rows drawn from each part of QM9's published split, in the order of that split's own permutation; see
``fixture.md`` for what they are and where they come from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fm_science_domains.molecule import qm9
from fm_science_domains.molecule.cache import Dropped
from fm_science_domains.molecule.fixture import FILE, encode
from fm_science_domains.molecule.pack import Pack

COUNTS = (8_000, 1_000, 1_000)  # molecules to train, validate and test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FILE, help="the file to write")
    args = parser.parse_args()
    parts = qm9.split()
    order = np.random.RandomState(0).permutation(qm9.ROWS)
    chosen = sorted(i for part, count in enumerate(COUNTS) for i in order[parts[order] == part][:count].tolist())
    parsed = zip(chosen, qm9.some(chosen), strict=True)
    kept = [(*found, parts[i]) for i, found in parsed if not isinstance(found, Dropped)]
    encode(Pack.of(*(list(column) for column in zip(*kept, strict=True))), args.out)
    print(f"{len(kept)} molecules, {args.out.stat().st_size / 1e6:.2f} MB in {args.out}")


if __name__ == "__main__":
    main()
