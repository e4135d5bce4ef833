"""What each number that is measured of clouds means, in one line: its unit, and which way is better.

A name with a star stands for all that begin or end so.
"""

from __future__ import annotations

MEANINGS = {
    "n": "clouds that were measured",
    "finite": "share of clouds whose coordinates are all finite",
    "radius": "size of a cloud, mean",
    "radius_w1": "Wasserstein-1 distance of sizes to the held-out clouds'; less is better",
    "distance": "distance between two points, mean",
    "distance_w1": "Wasserstein-1 distance of the laws of distances; less is better",
    "distance_tv": "total variation distance of the laws of distances, 0 to 1; less is better",
    "energy": "energy, mean, kT",
    "energy_median": "energy, median, kT",
    "energy_w1": "Wasserstein-1 distance of energies to the held-out clouds', kT; less is better",
    "energy_w2": "Wasserstein-2 distance of energies, kT; less is better",
    "virial": "virial, mean: at equilibrium the number of degrees of freedom",
    "surface_error": "distance of points from the nearest family's surface, median over clouds; less is better",
    "class_right": "share of clouds recognised as the class that was asked for; more is better",
    "*_share": "share of clouds nearest to this family of shapes",
    "*_w1": "Wasserstein-1 distance of this parameter of the shapes to the held-out clouds'; less is better",
    "1nna_*": "how often a cloud's nearest neighbour is of its own set; 0.5 is best",
    "mmd_*": "mean distance of a held-out cloud to the nearest sample; less is better",
    "cov_*": "share of held-out clouds that are nearest to a sample; more is better",
    "nll": "negative log-likelihood of held-out clouds, nats; less is better",
    "nll_unnormalised": "the same without the normaliser of the Gaussian prior, as many papers print it",
    "nll_floor": "what the true law scores on the same clouds, nats",
    "nll_unnormalised_floor": "the same without the normaliser of the Gaussian prior",
    "nll_above_floor": "the difference to the true law, nats: a Kullback-Leibler divergence; less is better",
    "ess": "share of samples that count after weighting by exp(-U) / q; 1 is best",
    "ess_forward": "the same from reference samples: it notices what the flow has forgotten; 1 is best",
    "log_z": "log of the partition function, from those weights",
    "energy_weighted": "mean energy from those weights, kT",
    "path_length": "mean length of the way from noise to sample",
    "straightness": "its ratio to the straight distance; 1 is straight",
}
