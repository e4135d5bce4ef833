"""Features of images: those of a small classifier, trained on the training images themselves in a few seconds.

Distances between sets of images are measured in the features of a network. Published numbers use Inception's, trained
on photographs. These are of a small convolutional network that ships as code: its numbers compare the rows of one
table, but not with numbers from other sources, and are not called FID. Where images have classes the network learns
those, else it learns which of four quarter turns was applied (Gidaris et al. 2018). Its seed is fixed and its weights
are cached; their digest is in the run folder, so that the features of a table are known.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Sets
from .picture import Image
from .unet import normalised

VERSION = 1  #: raised when the network or its training changes
STEPS, BATCH, FEATURES = 300, 128, 32
MOST = 10_000  #: training images that are used


class Classifier(nn.Module):
    """Three stages of convolutions, a mean over the image, and features ``(B, 32)`` before the classes."""

    def __init__(self, channels: int, classes: int, size: int) -> None:
        super().__init__()
        halvings = max(1, min(3, (size // 4).bit_length()))  # 4 or less pixels a side remain, at most 1/8
        stages: list[nn.Module] = [nn.Conv2d(channels, 24, 3, padding=1)]
        now = 24
        for k in range(halvings):
            out = min(96, 24 * 2 ** (k + 1))
            stages += [normalised(now), nn.SiLU(), nn.Conv2d(now, out, 3, stride=2, padding=1)]
            now = out
        self.stages = nn.Sequential(*stages, normalised(now), nn.SiLU(), nn.Conv2d(now, now, 3, padding=1), nn.SiLU())
        self.features, self.classes = nn.Linear(now, FEATURES), nn.Linear(FEATURES, classes)

    def embed(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to features ``(B, 32)``."""
        return self.features(self.stages(x).mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to logits."""
        return self.classes(F.silu(self.embed(x)))


class Features:
    """The features of one set of training images; the classifier is trained, or found in the cache, at first use.

    Args:
        found: the images.
        folder: of the cache; ``None``: the user's.
    """

    def __init__(self, found: Sets, folder: str | None = None) -> None:
        self.sets = found
        self.folder = Path(folder).expanduser() if folder else home() / "image"
        self.turns = found.guide is None

    @cached_property
    def key(self) -> str:
        """A digest of the images and of how the classifier is trained."""
        stack = self.sets.train
        some = stack.levels[:MOST].contiguous().numpy().tobytes()
        guide = b"" if self.sets.guide is None else self.sets.guide[:MOST].numpy().tobytes()
        how = f"{VERSION} {STEPS} {BATCH} {FEATURES} {stack.top} {stack.levels.shape}".encode()
        return hashlib.sha256(some + guide + how).hexdigest()[:12]

    @cached_property
    def network(self) -> Classifier:
        """The classifier."""
        channels, height, _ = self.sets.shape
        guide = self.sets.guide
        classes = 4 if guide is None else int(guide.max()) + 1
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            net = Classifier(channels, classes, height)
            file = self.folder / f"classifier-{self.key}.pt"
            if file.is_file():
                net.load_state_dict(torch.load(file, weights_only=True))
                return net.eval()
            with torch.enable_grad(), torch.inference_mode(False):
                self._train(net)
        self.folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        torch.save(net.state_dict(), part)
        os.replace(part, file)
        return net.eval()

    def _train(self, net: Classifier) -> None:
        guide = self.sets.guide
        stack = self.sets.train
        n = min(MOST, len(stack))
        optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS)
        for _ in range(STEPS):
            index = torch.randint(n, (BATCH,))
            x = stack.pixels(index)
            x = torch.roll(x, (int(torch.randint(-1, 2, ())), int(torch.randint(-1, 2, ()))), (2, 3))
            x, target = turned(x) if guide is None else (x, guide[index])
            loss = F.cross_entropy(net(x + 0.1 * torch.randn_like(x)), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    @cached_property
    @torch.no_grad()
    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each feature over training images, for standardisation."""
        found = torch.cat([self.network.embed(x) for x in self.sets.train.pixels(slice(MOST)).split(500)])
        return found.mean(0), found.std(0).clamp_min(1e-6)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image]) -> tuple[Tensor, Tensor]:
        """Features ``(n, 32)`` in double precision, standardised over training images, and the probabilities of the
        classes ``(n, classes)``."""
        parts = [torch.stack([image.pixels for image in images[i : i + 500]]) for i in range(0, len(images), 500)]
        found = [self.network.embed(x.float()) for x in parts] or [torch.zeros(0, FEATURES)]
        features = torch.cat(found)
        mean, std = self._scale
        return ((features - mean) / std).double(), self.network.classes(F.silu(features)).softmax(-1).double()

    @property
    def digest(self) -> str:
        """A digest of the weights, for the record."""
        raw = b"".join(p.detach().numpy().tobytes() for p in self.network.parameters())
        return hashlib.sha256(raw).hexdigest()[:12]

    def accuracy(self) -> float:
        """The share of held-out images whose class (or quarter turn) the classifier predicts."""
        x, target = self.sets.held_out.pixels(slice(2000)), self.sets.held_out.labels
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(0)
            if self.turns or target is None:
                x, target = turned(x) if self.turns else (x, None)
            if target is None:
                return float("nan")
            return float((self.network(x).argmax(1) == target[: len(x)]).float().mean())


def turned(x: Tensor) -> tuple[Tensor, Tensor]:
    """The central squares of images, each rotated by a random number of quarter turns, and these numbers."""
    side = min(x.shape[2:])
    above, left = ((n - side) // 2 for n in x.shape[2:])
    x = x[:, :, above : above + side, left : left + side]
    quarters = torch.randint(4, (len(x),))
    return torch.stack([torch.rot90(image, int(k), (1, 2)) for image, k in zip(x, quarters, strict=True)]), quarters


def home() -> Path:
    """The user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fm_science"
