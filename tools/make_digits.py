"""Make the shipped digits: ``python tools/make_digits.py digits.csv.gz``.

The input is the table of scikit-learn's wheel (``sklearn/datasets/data/digits.csv.gz``): 1,797 rows of 64 grey levels
0 to 16 and the digit. See ``digits.md`` beside the file for its origin.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fm_science_domains.image.data import DIGITS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="digits.csv.gz")
    table = np.loadtxt(parser.parse_args().source, delimiter=",").astype(np.uint8)
    np.savez_compressed(DIGITS, x=table[:, :64].reshape(-1, 8, 8), y=table[:, 64])
    print(f"{len(table)} images, {DIGITS.stat().st_size} bytes: {DIGITS}")


if __name__ == "__main__":
    main()
