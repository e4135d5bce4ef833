"""Folders of samples, and what there is to read in a folder.

Where samples are drawn, ``sampling.yaml`` says how. Folders inside hold other things: what half-trained networks drew
while a run was validated, and ways from noise to sample.
"""

from __future__ import annotations

from pathlib import Path

RECORD = "sampling.yaml"  #: how the samples beside it were drawn, and which files they are


def files_in(folder: Path) -> list[Path]:
    """The files of a folder and of the folders inside, in order; of a folder of samples its own alone."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    drawn = {file.parent for file in files if file.name == RECORD}
    return [file for file in files if drawn.isdisjoint(file.parent.parents)]
