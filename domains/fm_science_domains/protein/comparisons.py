"""Comparisons of whole folds and of designed sequences, which take longer than geometry: 10 ms to 1 s for each sample.

Folds are compared by their TM-score with each other and with real chains. Sequences are designed by ProteinMPNN, which
knows which backbones a sequence can have, and a structure predictor may fold them again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from fm_science.domain import option

from . import chains, dssp, fold, mpnn, predictors, second_opinion
from .averages import mean, means, table
from .structure import Backbone

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metrics:
    """The amount of work for comparisons of folds (about 10 ms each) and on sequences (about 1 s each)."""

    pairs: int = option(200, "pairs of samples compared for diversity, at most", low=1)
    candidates: int = option(10, "real chains each sample is compared with in a search for the nearest", low=1)
    designed: int = option(16, "samples of each row that DSSP reads and for which a sequence is designed", low=0)
    predictor: str | None = option(
        None, "the predictor that folds designed sequences: esmfold, boltz, or own, which FM_SCIENCE_PREDICTOR names",
        choices=predictors.NAMES,
    )  # fmt: skip
    designs: int = option(8, "sequences that are designed and folded for each of the same samples", low=1)


@dataclass
class Comparisons:
    """The metrics that have options; each takes samples and a reference.

    Args:
        options: how much work they may take.
        train: gives the chains for novelty, when that is measured; none: the shipped training chains.
    """

    options: Metrics = field(default_factory=Metrics)
    train: Callable[[], Sequence[Backbone]] | None = None

    @cached_property
    def pool(self) -> tuple[Sequence[Backbone], Tensor]:
        """The training chains, and the shapes by which the nearest ones are found."""
        natives = chains.backbones(False) if self.train is None else self.train()
        return natives, fold.shapes(natives)

    def diversity(self, samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
        """Mean TM-score of pairs of samples, and clusters at TM 0.5 as a fraction of the samples compared."""
        matrix = fold.similarity(samples, self.options.pairs)
        n = len(matrix)
        pairs = ((matrix.sum() - n) / (n * (n - 1))).item() if n > 1 else math.nan
        return {"tm_pairs": pairs, "clusters": fold.clusters(matrix) / n if n else math.nan}

    def novelty(self, samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
        """TM-score to the nearest training chain (1: a copy): mean, and the fraction above 0.5 (same fold)."""
        natives, features = self.pool
        scores = torch.tensor([fold.nearest(b, natives, self.options.candidates, features) for b in samples])
        scores = scores[scores.isfinite()]
        return {"tm_train": mean(scores), "tm_train_same_fold": mean((scores > 0.5).double())}

    def folds(self, samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
        """The fold: contacts between distant residues, and TM-score to the nearest other chain of reference."""
        shapes = fold.shapes(reference) if reference else None
        most = self.options.candidates
        scores = torch.tensor([fold.nearest(b, reference, most, shapes, others=True) for b in samples])
        return means(samples, "contact_order", "long_range") | {"tm_native": mean(scores[scores.isfinite()])}

    def sequences(self, samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
        """The results of ProteinMPNN, and of Frame2seq if it is installed: the information of the backbone about its
        sequence, and the mean log-probability, nats per residue, of a designed sequence; nothing if it is not
        installed."""
        if not mpnn.installed():
            log.info("no judgement of sequences: it needs ProteinMPNN, %s", mpnn.HINT)
            return {}
        usable = [b for b in samples if mpnn.judged(b)]
        found = torch.tensor([mpnn.information(b) for b in usable])
        scores = torch.tensor([mpnn.design(b, 1)[0].score for b in usable[: self.options.designed]])
        row = {"mpnn_information": mean(found), "mpnn_likelihood": mean(scores)}
        if second_opinion.installed():
            other = torch.tensor([second_opinion.information(b) for b in usable[: self.options.designed]])
            row["frame2seq_information"] = mean(other)
        return row

    def program(self, samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
        """Helix and strand by the program DSSP; nothing if it is not installed."""
        judged = samples[: self.options.designed]
        return dssp.shares(judged) if judged and dssp.installed() else {}

    def consistency(self, samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
        """Whether designed sequences fold back. See ``predictors.consistency``; designable is the share of samples for
        which one is within 2 angstrom. Nothing if no predictor is requested. Raises UserError if it fails."""
        if self.options.predictor is None:
            return {}
        predict = predictors.predictor(self.options.predictor)
        found = [predictors.consistency(b, predict, self.options.designs) for b in samples[: self.options.designed]]
        rows = table(found, "sc_rmsd", "sc_tm")
        near = (rows[:, 0] < predictors.DESIGNABLE).double()
        return {"sc_rmsd": mean(rows[:, 0]), "sc_tm": mean(rows[:, 1]), "designable": mean(near)}
