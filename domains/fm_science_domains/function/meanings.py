"""The meaning of each metric of functions, in one line: its unit, and which direction is better.

A name with a star stands for all names with this beginning or end.
"""

from __future__ import annotations

MEANINGS = {
    "n": "functions that were measured",
    "finite": "share of functions whose values are all finite",
    "mean": "mean of all values",
    "spread": "standard deviation of all values",
    "*_mse": "mean square error of this pointwise statistic to that of held-out functions; less is better",
    "spectrum_error": "error of the ratio of variances over wave numbers, mean; less is better",
    "spectrum_high": "ratio of variances over the upper half of wave numbers; 1 is best, more is noise of the grid",
    "frechet": "Wasserstein-2 distance of Gaussians with the means and covariances of both sets; less is better",
    "energy_distance": "energy distance in the L² norm; less is better",
    "crps": "continuous ranked probability score, samples as an ensemble for each held-out value; less is better",
    "nearest_training": "distance to the nearest training function, median",
    "memorised": "share of samples three times as near to one training function as to any other",
}
