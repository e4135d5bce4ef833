"""FID, if the user has torch-fidelity and the weights of its Inception network (Heusel et al. 2017).

Nothing else needs it. The weights are not shipped: torch-fidelity loads them from its cache, or downloads them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import torch

from fm_science.errors import UserError

from .files import write
from .picture import Image
from .stack import Stack

PIECE = 1_000  #: training images that are in memory together


def fid(train: Stack, samples: Sequence[Image], reference: Sequence[Image]) -> dict[str, float]:
    """FID of the samples to the training images, by torch-fidelity. Raises UserError if that cannot run."""
    try:
        from torch_fidelity import calculate_metrics
    except ImportError as error:
        raise UserError("metrics.fid needs torch-fidelity: pip install torch-fidelity") from error
    with tempfile.TemporaryDirectory() as given, tempfile.TemporaryDirectory() as real:
        write(samples, given)
        for first in range(0, len(train), PIECE):
            write(train.take(torch.arange(first, min(first + PIECE, len(train)))).images(), real, first)
        try:
            found = calculate_metrics(input1=given, input2=real, fid=True, cuda=False, verbose=False)
        except Exception as error:  # such as missing weights
            raise UserError(f"torch-fidelity cannot compute FID: {error}") from error
    return {"fid": float(found["frechet_inception_distance"])}
