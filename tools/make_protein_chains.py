"""Make the shipped protein chains: ``python tools/make_protein_chains.py proteins.npz``.

The input holds X-ray backbones taken from the structure database of ProMod3 (Debian package ``promod3-data``): arrays
``pdb_id``, ``chain``, ``length``, ``cluster30``, ``rg_ratio`` for each chain; ``seq``, ``dssp``, ``xyz_centiangstrom``
for all residues of all chains in a row. Kept are compact chains of 40 to 128 residues; see ``chains.md`` for the rules.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fm_science_domains.protein.chains import FILE, encode

LENGTHS = (40, 128)
COMPACT = 1.25  # radius of gyration over 2.2 L^0.38 angstrom


def select(table: dict[str, np.ndarray]) -> np.ndarray:
    """Indices of the chains to ship, ordered by length, then name."""
    length = table["length"].astype(int)
    fits = (length >= LENGTHS[0]) & (length <= LENGTHS[1]) & (table["rg_ratio"].astype(float) < COMPACT)
    return np.array(sorted(np.flatnonzero(fits), key=lambda i: (length[i], table["pdb_id"][i], table["chain"][i])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the .npz with all chains")
    parser.add_argument("--out", type=Path, default=FILE, help="the file to write")
    args = parser.parse_args()
    with np.load(args.source, allow_pickle=False) as file:
        table = {key: file[key] for key in file.files}
    kept = select(table)
    length = table["length"].astype(int)
    start = np.cumsum(length) - length
    rows = np.concatenate([np.arange(start[i], start[i] + length[i]) for i in kept])
    np.savez_compressed(
        args.out,
        name=np.array([f"{table['pdb_id'][i]}_{table['chain'][i]}" for i in kept]),
        length=length[kept].astype(np.uint8),
        cluster=table["cluster30"][kept].astype(np.int32),
        sequence=table["seq"][rows],
        dssp=table["dssp"][rows],
        steps=encode(table["xyz_centiangstrom"][rows], length[kept]),
    )
    print(f"{len(kept)} chains, {len(rows)} residues, {args.out.stat().st_size / 1e6:.2f} MB in {args.out}")


if __name__ == "__main__":
    main()
