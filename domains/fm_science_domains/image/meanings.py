"""The meaning of each metric of images, in one line: its unit, and which direction is better.

A name with a star stands for all names with this beginning or end.
"""

from __future__ import annotations

MEANINGS = {
    "n": "images that were measured",
    "finite": "share of images whose values are all finite",
    "frechet": "Fréchet distance to the held-out images in features of a small classifier; less is better",
    "kernel": "squared kernel distance to the held-out images in the same features; less is better",
    "frechet_to_training": "Fréchet distance to the training images; the held-out row is the best to expect",
    "kernel_to_training": "squared kernel distance to the training images; the held-out row is the best to expect",
    "precision": "share of samples among the data (Kynkäänniemi et al. 2019); more is better",
    "recall": "share of data among the samples; more is better",
    "coverage": "share of data that have a sample near them (Naeem et al. 2020); more is better",
    "class_as_asked": "share of samples that a classifier assigns to the requested class; more is better",
    "class_confidence": "the confidence of that classifier",
    "class_tv": "total variation distance of the frequencies of classes, 0 to 1; less is better",
    "nearest_training": "distance to the nearest training image, root mean square per value",
    "copies": "share of samples nearer to a training image than 99 in 100 held-out images; "
    "new images have 0.01",
    "fid*": "Fréchet distance in features of an Inception network; less is better",
    "bits_held_out": "bits per dimension of held-out images; less is better",
    "bits_training": "bits per dimension of training images; far below the held-out ones is memorisation",
    "bits_gaussian": "bits per dimension under the Gaussian of the training images",
    "bits_uniform": "bits per dimension under uniform noise",
}
