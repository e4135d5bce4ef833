"""Events that are made, not measured, to try the package without data of one's own::

    python -m fm_earth.made events.csv

They lie along two wavy lines, as earthquakes along the edges of plates, and in a few swarms.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from .files import Event, write


def made(n: int = 3000, seed: int = 0) -> list[Event]:
    """``n`` made events: seven tenths along two lines, two in swarms, one anywhere."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, n, p=[0.7, 0.2, 0.1])
    along, which = rng.uniform(-180, 180, n), rng.integers(0, 2, n)
    line = np.stack([np.where(which, 35, -25) + 20 * np.sin(np.radians((2 + which) * along)), along], 1)
    centre = np.array([[10.0, -85.0], [-40.0, 175.0], [64.0, -20.0], [0.0, 98.0]])[rng.integers(0, 4, n)]
    anywhere = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, n))), rng.uniform(-180, 180, n)], 1)
    x = np.choose(kind[:, None], [line + rng.normal(0, 1.5, (n, 2)), centre + rng.normal(0, 3, (n, 2)), anywhere])
    return [Event(float(a), float((b + 180) % 360 - 180)) for a, b in np.clip(x, [-90, -400], [90, 400])]


def main(words: list[str]) -> None:
    """Write made events into the file that is named."""
    file = Path(words[0] if words else "events.csv")
    write(made(), file.parent)[0].replace(file)
    print(file)


if __name__ == "__main__":
    main(sys.argv[1:])
