"""A second network for the information of a backbone about its sequence: Frame2seq (Akpinaroglu et al. 2023).

It reads frames where ProteinMPNN reads distances, and was trained separately, so a backbone with a high value of one by
accident need not have that of the other. It needs the package frame2seq, whose wheel has the weights of three networks;
their outputs are averaged. Real chains have 1.5 nats per residue, random coils .6; one takes 3 s. The weights are
loaded as plain numbers, and no code in the files is run.
"""

from __future__ import annotations

import math
import warnings
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from fm_science.errors import UserError

from . import mpnn
from .structure import Backbone

HINT = "pip install 'fm-science[frame2seq]'"
UNKNOWN, LETTERS = 20, 21


def installed() -> bool:
    """Whether the package frame2seq is installed."""
    return find_spec("frame2seq") is not None


@cache
def networks() -> tuple[nn.Module, ...]:
    """The three networks on the CPU, loaded at first use. Raises UserError if the package is missing."""
    if not installed():
        raise UserError(f"a second opinion needs Frame2seq: {HINT}")
    import frame2seq
    from frame2seq.model.Frame2seq import frame2seq as Frame2seq

    nets = []
    for file in sorted((Path(next(iter(frame2seq.__path__))) / "trained_models").glob("*.ckpt")):
        saved = torch.load(file, map_location="cpu", weights_only=True)
        net = Frame2seq(saved["hyper_parameters"]["config"])
        net.load_state_dict(saved["state_dict"])
        nets.append(net.eval().requires_grad_(False))
    return tuple(nets)


@lru_cache(maxsize=4096)
def information(backbone: Backbone) -> float:
    """The information of a backbone about its sequence, nats per residue; as :func:`~.mpnn.information`."""
    if not mpnn.judged(backbone):
        return math.nan
    places = with_beta(backbone.coords.detach().cpu().float())
    nothing = torch.zeros(1, len(backbone), LETTERS)
    nothing[..., UNKNOWN] = 1
    real = torch.ones(1, len(backbone), dtype=torch.bool)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls deprecated functions of torch
        logits = sum(net(places[None], real, nothing) for net in networks()) / len(networks())
    return mpnn.gained(logits[0].double().log_softmax(-1))


def with_beta(coords: Tensor) -> Tensor:
    """Positions (L, 4, 3) of N, CA, C and an ideal CB, in angstrom, of coords (L, 4, 3)."""
    n, ca, c = coords[:, :3].unbind(1)
    b, d = ca - n, c - ca
    beta = ca - 0.5827 * torch.linalg.cross(b, d) + 0.5680 * b - 0.5407 * d  # tetrahedral, 1.53 angstrom from CA
    return torch.stack([n, ca, c, beta], 1)
