"""Writes constraints.txt: the exact version of every package that a full installation takes.

    python tools/lock.py            # the newest versions of everything
    python tools/lock.py --keep     # what is pinned stays as it is; only what is missing is added

The file is portable: local labels such as +cpu are dropped, as are index addresses, hashes and the packages that only
a GPU build of torch brings, so that the same lines serve machines with and without a GPU. To move to another version of
torch, change it here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = "torch==2.13.0"
EXTRAS = "all,dev,qm9,posebusters,xtb"
GPU_ONLY = re.compile(r"nvidia-|cuda-|triton$")


def resolve(keep: bool = False) -> list[dict]:
    """What pip would install into an empty environment; with ``keep``, at the versions that are pinned already."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    pip += ["-c", "constraints.txt"] if keep else []
    command = [*pip, TORCH, "-e", f".[{EXTRAS}]"]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout[result.stdout.index("{") :])["install"]


def pins(packages: list[dict]) -> list[str]:
    """One line ``name==version`` for every package but our own."""
    found = set()
    for package in packages:
        name = re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower()
        if not package["is_direct"] and not GPU_ONLY.match(name):
            found.add(f"{name}=={package['metadata']['version'].partition('+')[0]}")
    return sorted(found)


if __name__ == "__main__":
    header = "# Written by tools/lock.py; used by: pip install -c constraints.txt -e '.[all,dev]'"
    lines = [header, *pins(resolve(keep="--keep" in sys.argv))]
    (ROOT / "constraints.txt").write_text("\n".join(lines) + "\n")
    print(f"{len(lines) - 1} packages")
