"""How good generated backbones are, compared with real ones: by geometry, and by networks if they are installed.

A metric takes samples and a reference set and returns named numbers; :func:`metrics` gives all. No single number proves
a protein: a random coil with perfect torsions passes every local test, so read local geometry, secondary
structure and fold together, and compare with the rows of ``references``: real chains held out from training, the
training set itself (the best of any sampler, and the result of memorisation), and that random coil.

Averages are over samples, of the values that ``measure`` gives each one. Samples with coordinates that are not numbers
are counted in ``finite`` only. A number that is not defined is NaN, never an exception.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fm_science.distances import energy_distance, jensen_shannon
from fm_science.distances import frechet as frechet_distance

from . import mpnn, requested
from .averages import column, known, mean_of, means, table
from .comparisons import Comparisons
from .comparisons import Metrics as Metrics
from .geometry import letters, measure
from .ramachandran import histogram, pairs
from .references import matched as matched
from .references import random_coil as random_coil
from .references import references as references
from .structure import Backbone

Metric = Callable[[Sequence[Backbone], Sequence[Backbone]], dict[str, float]]
DESCRIPTORS = {  # and their standard deviation over real chains
    "helix": 0.224, "strand": 0.162, "rg_ratio": 0.080, "contact_order": 0.067, "long_range": 0.43, "neighbours": 1.42,
    "phi_positive": 0.030, "rama_favoured": 0.033,
}  # fmt: skip


def per_sample(backbones: Sequence[Backbone]) -> list[dict[str, Any]]:
    """One row per backbone: name, all numbers of ``geometry.measure``, how much of its conditions it kept, its bonds
    before they were closed, the result of ProteinMPNN if it is installed, and its secondary structure in letters."""
    rows = []
    for b in backbones:
        row: dict[str, Any] = {"name": b.name, **measure(b), **requested.kept(b), **requested.closed(b)}
        row |= {"mpnn_information": mpnn.information(b)} if mpnn.installed() else {}
        rows.append(
            {**row, "structure": letters(b.coords), "asked_structure": b.structure or "", "asked_sheet": b.sheet}
        )
    return rows


def peptide(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """The bonds between residues. See ``geometry.peptide``."""
    names = ("finite", "ca_ca", "ca_ca_ok", "ca_ca_cis", "c_n", "c_n_ok", "angle_ca_c_n", "angle_ca_c_n_sd",
             "angle_c_n_ca", "angle_c_n_ca_sd", "omega_trans", "omega_sd")  # fmt: skip
    return means(samples, *names)


def ramachandran(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """Torsions in favoured and allowed regions, and the Jensen-Shannon divergence (bits) of their 10 degree histogram.

    The divergence of two finite sets from the same distribution is above zero; the training row shows by how much.
    """
    js = jensen_shannon(_torsion_counts(samples), _torsion_counts(reference))
    return means(samples, "rama_favoured", "rama_allowed", "phi_positive") | {"rama_js": js}


def _torsion_counts(backbones: Sequence[Backbone]) -> Tensor:
    found = torch.cat([torch.zeros(0, 2, dtype=torch.float64), *(pairs(b).cpu() for b in backbones)])
    return histogram(found[found.isfinite().all(-1)], 36)


def clashes(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """Residues and atoms that overlap. See ``geometry.clashes``."""
    return means(samples, "clashes", "overlaps")


def size(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """The compactness of chains compared with real ones of their length. See ``geometry.size``."""
    return means(samples, "rg", "rg_ratio", "rg_z", "neighbours")


def secondary(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """Helix, strand and coil content; ss_distance compares the distributions of samples and reference over (helix,
    strand).

    ss_distance is the root of the energy distance of the two clouds of points (Szekely & Rizzo 2013), 0 for equal
    distributions.
    """
    clouds = [torch.stack([column(s, "helix"), column(s, "strand")], -1) for s in (samples, reference)]
    square = energy_distance(*clouds)
    distance = math.sqrt(max(square, 0.0)) if math.isfinite(square) else math.nan
    return means(samples, "helix", "strand", "coil") | {"ss_distance": distance}


def strands(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """The partners of strands. Of the residues that were requested to be strand (or are, without a request), the share
    with another CA at 4.3 to 5.6 angstrom, nearer, or farther. See ``geometry.placement``."""
    names = ("strand_placed", "strand_near", "strand_far")
    weights = table([measure(b) for b in samples], "strand_judged", *names)
    return {name: mean_of(weights[:, k], weights[:, 0]) for k, name in enumerate(names, 1)}


def obedience(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """How much samples keep of the requested structure and sheets; nothing without a request."""
    return known([requested.kept(b) for b in samples])


def closure(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """The joints of samples before their bonds were closed, and how far their atoms moved, on average and in the worst
    chain; nothing if bonds were not closed."""
    rows = [requested.closed(b) for b in samples]
    moved = [row["atoms_moved"] for row in rows if math.isfinite(row["atoms_moved"])]
    return known(rows) | ({"atoms_moved_most": max(moved)} if moved else {})


def frechet(samples: Sequence[Backbone], reference: Sequence[Backbone]) -> dict[str, float]:
    """Frechet distance of Gaussians fitted to eight fixed descriptors, in units of their native standard deviation.

    As the Frechet inception distance (Heusel et al. 2017), squared; it needs no trained network. Small sets are biased
    upwards: compare with the training row, which has as many chains.
    """
    scale = torch.tensor(list(DESCRIPTORS.values()), dtype=torch.float64)
    clouds = [torch.stack([column(s, name) for name in DESCRIPTORS], -1) / scale for s in (samples, reference)]
    return {"frechet": frechet_distance(*clouds)}


def metrics(
    options: Metrics | None = None, train: Callable[[], Sequence[Backbone]] | None = None
) -> dict[str, Metric]:  # fmt: skip
    """All metrics by name. train: gives the chains for novelty, when that is measured; none: the shipped training
    chains."""
    c = Comparisons(options or Metrics(), train)
    return {
        "peptide": peptide, "closure": closure, "ramachandran": ramachandran, "clashes": clashes, "size": size,
        "secondary": secondary, "strands": strands, "obedience": obedience, "fold": c.folds, "diversity": c.diversity,
        "novelty": c.novelty, "frechet": frechet, "sequences": c.sequences, "dssp": c.program,
        "consistency": c.consistency,
    }  # fmt: skip


SLOW = frozenset({"sequences", "dssp", "consistency"})  # measured only by evaluate, since they would slow down training
