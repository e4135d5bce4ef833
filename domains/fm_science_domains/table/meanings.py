"""What each number that is measured of tables means, in one line: its unit, and which way is better.

A name with a star stands for all that begin or end so.
"""

from __future__ import annotations

MEANINGS = {
    "n": "rows that were measured",
    "column_w1": "Wasserstein-1 distance of each column, in spreads, mean; less is better",
    "column_w1_worst": "the same of the worst column",
    "class_tv": "total variation distance of the shares of classes, 0 to 1; less is better",
    "correlation_error": "difference of correlations, mean; less is better",
    "correlation_error_worst": "difference of the worst correlation",
    "energy_distance": "energy distance of the whole laws; less is better",
    "sliced_w2": "sliced Wasserstein-2 distance of the whole laws; less is better",
    "w2": "exact Wasserstein-2 distance of the whole laws; less is better",
    "classifier_accuracy": "how often a small perceptron tells unseen rows apart; a half is best",
    "copies": "share of rows three times as near to one training row as to any other",
    "nearest_training_row": "distance to the nearest training row, median",
    "nll": "negative log-density of complete held-out rows, nats in the user's units; less is better",
    "nll_error": "its standard error",
    "bits_per_column": "the same in bits a column",
    "nll_gaussian": "the same of a Gaussian fitted to the same rows",
    "nll_kernel_density": "the same of a kernel density fitted to the same rows",
    "nll_spline_flow": "the same of a spline flow fitted to the same rows",
    "nll_exact": "the same of the law itself, where it is known",
    "w2_dual": "Wasserstein-2 distance of noise and held-out rows by the dual potentials of kind=icnn, in spreads",
    "fill_error": "error of the mean of the draws that fill a cell, in spreads; 1 is no better than the column's mean",
    "fill_class_right": "how often a class drawn into a cell is the true one; more is better",
}
