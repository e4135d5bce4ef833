"""Ancestral sampling: the walk from noise to data whose steps have a known law, part by part.

Noise that is only ever added backwards in time gives a chain of which each step towards the data is known in closed
form, once the datum is predicted: a Gaussian where the noise is Gaussian (Ho et al. 2020), probabilities where there
are classes (Austin et al. 2021). The two ends of such a walk are independent: it is *memoryless*. The laws of its steps
can be drawn from and compared, which importance weights and policy gradients need. Parts without such noise, on curved
spaces or after a coupling, follow the flow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fm_science.paths import Bridge, Path
from fm_science.spaces.base import total
from fm_science.state import State, expand_like, map_leaves, scale, zip_leaves


class Transition(ABC):
    """The law of one part of a state after a step."""

    @abstractmethod
    def draw(self) -> Tensor:
        """A sample, a point of the part's bound space."""

    @abstractmethod
    def log_prob(self, y: Tensor) -> Tensor:
        """Log-density or log-probability of ``y``, ``(B,)``, up to a constant that all laws of this step share."""

    @abstractmethod
    def divergence(self, other: Transition) -> Tensor:
        """Relative entropy to another law of the same step, ``(B,)``, in nats."""

    def moved(self, gradient: Tensor) -> Transition:
        """The law after the predicted datum was moved along the gradient of a log-likelihood; itself by default."""
        return self


@dataclass(frozen=True)
class GaussianStep(Transition):
    """N(mean, std² S), with S the covariance of the noise.

    Attributes:
        part: the bound path of the part.
        mean: a point.
        std: ``(B,)``; zero in the last step, which has no law to compare.
        answer: how far the mean moves for a gradient of a log-likelihood, before S, ``(B,)``.
    """

    part: Bridge
    mean: Tensor
    std: Tensor
    answer: Tensor

    def draw(self) -> Tensor:
        return self.part.space.project(self.mean + expand_like(self.std, self.mean) * self.part.noise(self.mean))

    def log_prob(self, y: Tensor) -> Tensor:
        spreads, space = self.std > 0, self.part.space
        z = scale(1 / torch.where(spreads, self.std, 1.0), y - self.mean)
        assert self.part.prior is not None
        return torch.where(spreads, self.part.prior.log_prob(space, space.tangent(z, z)), 0.0)

    def divergence(self, other: Transition) -> Tensor:
        return self.log_prob(self.mean) - other.log_prob(self.mean)  # both have the same covariance

    def moved(self, gradient: Tensor) -> GaussianStep:
        """Each degree of freedom moves by at most the noise of the step, in the mean square: a gradient that is true
        at x alone would overshoot."""
        assert self.part.prior is not None
        space = self.part.space
        way = scale(self.answer, self.part.prior.correlate(space, gradient))
        length = (self.answer * total(gradient * way)).clamp_min(0).sqrt()
        longest = self.std * space.dimension.to(self.std).sqrt()
        fits = length <= longest
        share = torch.where(fits, 1.0, longest / torch.where(fits, 1.0, length))
        return replace(self, mean=space.project(self.mean + scale(share, way)))


@dataclass(frozen=True)
class ClassStep(Transition):
    """Independent classes on each site, with probabilities ``(B, *sites, classes)``, from ``x``."""

    part: Bridge
    x: Tensor
    probabilities: Tensor

    def draw(self) -> Tensor:
        return self.part.space.exp(self.x, self.probabilities - self.x)

    def log_prob(self, y: Tensor) -> Tensor:
        return self._counted(_log((self.probabilities * y).sum(-1)))

    def divergence(self, other: Transition) -> Tensor:
        assert isinstance(other, ClassStep)
        ratio = _log(self.probabilities) - _log(other.probabilities)
        return self._counted((self.probabilities * ratio).sum(-1))

    def _counted(self, each: Tensor) -> Tensor:
        return total(torch.where(self.part.space.counted_mask, each, 0.0))


@dataclass(frozen=True)
class FixedStep(Transition):
    """A step along the flow, without any randomness."""

    value: Tensor

    def draw(self) -> Tensor:
        return self.value

    def log_prob(self, y: Tensor) -> Tensor:
        return y.new_zeros(len(y))

    def divergence(self, other: Transition) -> Tensor:
        return self.log_prob(self.value)


def transitions(
    path: Path, raw: State, x: State, t: Tensor, s: Tensor, independent: bool = True, untied: Collection[str] = (),
    spread: float = 0.0,
) -> State:  # fmt: skip
    """The law of a step from time t to s by part: a :class:`Transition` in the place of each tensor of the state.

    Args:
        path: bound.
        raw: the network's output at ``x`` and time ``t``.
        independent: whether noise and data were independent in training; parts whose were not follow the flow.
        untied: parts of a product for which they were, if they were not for others.
        spread: of Gaussian parts, the standard deviation of the data in units of the noise: what Gaussian data of this
            spread leave unknown of x1 is drawn too, so that few steps do not narrow the law (Bao et al. 2022). Zero:
            the posterior variance of DDPM, which takes the predicted datum for certain.
    """
    if path.parts:
        return {
            k: transitions(part, raw[k], x[k], t, s, independent or k in untied, (), spread)
            for k, part in path.parts.items()
        }
    if isinstance(path, Bridge) and not path.space.smooth:
        return ClassStep(path, x, _probabilities(path, raw, x, t, s, independent))
    if isinstance(path, Bridge) and independent and stirred(path):
        return _gaussian(path, raw, x, t, s, spread)
    return FixedStep(path.step(raw, x, t, s))


def stirred(path: Path) -> bool:
    """Whether a bound path on one space adds Gaussian noise on a linear space."""
    return isinstance(path, Bridge) and path.space.linear and path.has_score


def draw(laws: State) -> State:
    """A state from the law of each of its parts."""
    return {k: draw(part) for k, part in laws.items()} if isinstance(laws, dict) else laws.draw()


def log_ratio(path: Path, laws: State, others: State, y: State) -> Tensor:
    """log of the probability of ``y`` under ``laws`` over that under ``others``, ``(B,)``."""
    each = [a.log_prob(z) - b.log_prob(z) for _, a, b, z in zip_leaves(path, laws, others, y)]
    return torch.stack(each).sum(0)


def divergence(path: Path, laws: State, others: State) -> Tensor:
    """Relative entropy of the laws of a step, ``(B,)``, in nats."""
    return torch.stack([a.divergence(b) for _, a, b in zip_leaves(path, laws, others)]).sum(0)


def moved(path: Path, laws: State, gradient: State) -> State:
    """The laws after the gradient of a log-likelihood has moved them."""
    return map_leaves(lambda _, law, g: law.moved(g), path, laws, gradient)


def signal_ratio(path: Bridge, t: Tensor, s: Tensor) -> Tensor:
    """(alpha_t sigma_s) / (sigma_t alpha_s) ``(B,)``, the signal-to-noise ratio at t as a share of that at s >= t: how
    much of its noise a sample keeps in an ancestral step."""
    start, end = path.schedule(t)[0] * path.sigma(s), path.sigma(t) * path.schedule(s)[0]
    return torch.where(end > 0, start / torch.where(end > 0, end, 1.0), 0.0).clamp(0, 1)


def _gaussian(part: Bridge, raw: State, x: Tensor, t: Tensor, s: Tensor, spread: float) -> GaussianStep:
    """alpha_s x1hat + keep sigma_s x0hat, with the rest of sigma_s fresh (Ho et al. 2020, eq. 7). A gradient g of the
    log-likelihood moves x1hat by sigma_t² / alpha_t S g (Tweedie), and the mean by std² (alpha_s sigma_t²) / (alpha_t
    sigma_s²) S g, where the datum hardly shows yet by less."""
    keep, alpha, later = signal_ratio(part, t, s), part.schedule(t)[0], part.schedule(s)[0]
    sigma, rest = part.sigma(t), part.sigma(s)
    x1hat = part.endpoint(raw, x, t)
    noise = scale(keep * rest / sigma, x - scale(alpha, x1hat))
    certain = rest.square() * (1 - keep * keep).clamp_min(0)
    unknown = (spread * sigma).square() / ((spread * alpha).square() + sigma.square())
    share = later - keep * rest * alpha / sigma  # of x1hat in the mean
    std = torch.where(rest > 0, certain + share.square() * unknown, 0.0).sqrt()
    growth = later / torch.maximum(alpha, 0.5 * later)
    answer = (1 - keep * keep) * growth * sigma.square()
    return GaussianStep(part, part.space.project(scale(later, x1hat) + noise), std, torch.where(std > 0, answer, 0.0))


def _probabilities(path: Bridge, raw: State, x: Tensor, t: Tensor, s: Tensor, independent: bool) -> Tensor:
    """Of the classes at time s: sum over x1 of p(x1 | x_t) p(x_s | x_t, x1), where backwards in time each site keeps
    its class with probability k_t / k_s and else draws a new one (Austin et al. 2021, eq. 3). Where the noise is not
    known or not independent of the data: the jumps of the flow."""
    x1hat, chances = path.endpoint(raw, x, t), path.class_probabilities
    now, then = (expand_like(path.schedule(r)[0], x) for r in (t, s))
    if chances is None or not independent:
        left, rest = (expand_like(path.schedule.remaining(r), x) for r in (t, s))
        return x + (1 - rest / left) * (x1hat - x)
    chances = chances.to(x)
    again = (x * chances).sum(-1, keepdim=True)  # the chance that noise is of the present class
    seen = now * x + (1 - now) * again  # p(x_t | x1), by x1
    share = torch.where(seen > 0, x1hat / torch.where(seen > 0, seen, 1.0), 0.0)
    keep = torch.where(then > 0, now / torch.where(then > 0, then, 1.0), 1.0)
    found = (keep * x + (1 - keep) * again) * (then * share + (1 - then) * chances * share.sum(-1, keepdim=True))
    size = found.sum(-1, keepdim=True)  # one, except at sites that no noise could have made
    return torch.where(size > 0, found / torch.where(size > 0, size, 1.0), x)


def _log(p: Tensor) -> Tensor:
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()
