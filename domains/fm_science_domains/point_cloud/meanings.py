"""The meaning of each metric of clouds, in one line: its unit, and which direction is better.

A name with a star stands for all names with this beginning or end.
"""

from __future__ import annotations

MEANINGS = {
    "n": "clouds that were measured",
    "finite": "share of clouds whose coordinates are all finite",
    "radius": "size of a cloud, mean",
    "radius_w1": "Wasserstein-1 distance of sizes to those of held-out clouds; less is better",
    "distance": "distance between two points, mean",
    "distance_w1": "Wasserstein-1 distance of the distributions of distances; less is better",
    "distance_tv": "total variation distance of the distributions of distances, 0 to 1; less is better",
    "energy": "energy, mean, kT",
    "energy_median": "energy, median, kT",
    "energy_w1": "Wasserstein-1 distance of energies to those of held-out clouds, kT; less is better",
    "energy_w2": "Wasserstein-2 distance of energies, kT; less is better",
    "virial": "virial, mean: at equilibrium the number of degrees of freedom",
    "surface_error": "distance of points from the nearest family's surface, median over clouds; less is better",
    "class_right": "share of clouds recognised as the requested class; more is better",
    "*_share": "share of clouds nearest to this family of shapes",
    "*_w1": "Wasserstein-1 distance of this parameter of the shapes to that of held-out clouds; less is better",
    "1nna_*": "how often a cloud's nearest neighbour is of its own set; 0.5 is best",
    "mmd_*": "mean distance of a held-out cloud to the nearest sample; less is better",
    "cov_*": "share of held-out clouds that are nearest to a sample; more is better",
    "nll": "negative log-likelihood of held-out clouds, nats; less is better",
    "nll_unnormalised": "the same without the normaliser of the Gaussian prior, as many papers print it",
    "nll_floor": "the value of the true distribution on the same clouds, nats",
    "nll_unnormalised_floor": "the same without the normaliser of the Gaussian prior",
    "nll_above_floor": "the difference to the true distribution, nats: a Kullback-Leibler divergence; less is better",
    "ess": "effective share of samples after weighting by exp(-U) / q; 1 is best",
    "ess_forward": "the same from reference samples: it detects what the flow does not cover; 1 is best",
    "log_z": "log of the partition function, from those weights",
    "energy_weighted": "mean energy from those weights, kT",
    "path_length": "mean length of the trajectory from noise to sample",
    "straightness": "its ratio to the straight distance; 1 is straight",
}
