"""The shipped digits as vectors of 64 values, and how near samples come to them in features of a small classifier."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from fm_science_domains.image.data import Data, Sets, sets
from fm_science_domains.image.features import Features
from fm_science_domains.image.files import Image, rounded
from fm_science_domains.image.metrics import frechet
from fm_science_domains.image.recipe import dither
from tests.oracles.kernels import Kernels

SHAPE = {"dim": 64, "width": 256, "waves": 32}  #: of the network


class Digits:
    """1,438 training digits and 359 held-out ones, 8x8 with 17 grey levels in [-1, 1]."""

    @cached_property
    def _sets(self) -> Sets:
        return sets(Data())

    @cached_property
    def _features(self) -> tuple[Features, Tensor, float]:
        """The features of images, those of the training images, and the distance of held-out images to these."""
        features = Features(self._sets)
        known = features(self._sets.train.images())[0]
        return features, known, frechet(features(self._sets.held_out.images())[0], known)

    @property
    def bin(self) -> float:
        """The width of a grey level."""
        return float(self._sets.bin)

    @cached_property
    def train(self) -> Tensor:
        """The training digits, ``(1438, 1, 64)``."""
        return self._sets.train.pixels().reshape(-1, 1, 64)

    def dithered(self, x: Tensor) -> Tensor:
        """Digits with fresh even noise of the width of a grey level."""
        return dither(x, self.bin)

    def held_out(self, n: int) -> Tensor:
        """The first held-out digits, dithered, ``(n, 1, 64)``."""
        return self.dithered(self._sets.held_out.pixels(slice(n)).reshape(-1, 1, 64))

    def distance(self, samples: Tensor) -> float:
        """The Fréchet distance of samples ``(n, 1, 64)`` to the training digits, in features."""
        features, known, _ = self._features
        images = [Image(x) for x in rounded(samples.reshape(-1, 1, 8, 8), self._sets.train.top)]
        return frechet(features(images)[0], known)

    @property
    def real(self) -> float:
        """The same distance of the held-out digits."""
        return self._features[2]

    def kernels(self, std: float = 0.05) -> Kernels:
        """A Gaussian around each training digit, in double precision."""
        return Kernels(self.train.flatten(1).double(), std)


DIGITS = Digits()
