"""Measurements of a trained flow itself: bits per dimension, and the number of evaluations for a sample.

A stored image is a box of grey levels. Its probability under the flow is the density averaged over the box, and the
density at one uniform sample inside bounds it from below (uniform dequantisation; Theis, van den Oord & Bethge 2016):
bits here are upper bounds. The divergence is exact for small images and Hutchinson's estimate, unbiased, above.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.likelihood import Divergence, ExactTrace, Hutchinson, bits_per_dimension
from fm_science.solvers import RK4, Adaptive
from fm_science.state import Context

from .data import Sets
from .metrics import Metrics
from .recipe import dither
from .stack import Stack

BATCH = 16


def appraise(found: Sets, o: Metrics, flow: Flow, folder: Path | None = None) -> dict[str, float]:
    """Bits per dimension of held-out and of training images with baselines, and evaluations of the network;
    there are no pictures for the folder."""
    numbers: dict[str, float] = {}
    size = math.prod(found.shape)
    if o.likelihood:
        rule: Divergence = ExactTrace() if size <= o.exact else Hutchinson()
        for name, stack in (("held_out", found.held_out), ("training", found.train)):
            numbers[f"bits_{name}"], error = bits(flow, stack, o, rule)
            numbers[f"bits_{name}_error"] = error
        numbers |= baselines(found, o)
        numbers["bits_exact_trace"] = float(size <= o.exact)
    if o.evaluations:
        numbers |= evaluations(flow, found, o.evaluations)
    return numbers


@torch.no_grad()
def bits(flow: Flow, stack: Stack, o: Metrics, rule: Divergence) -> tuple[float, float]:
    """Mean bits per dimension of the first images of a stack, given their classes, and its standard error."""
    device = place(flow)
    found = []
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        for index in torch.arange(min(o.likelihood, len(stack))).repeat(o.draws).split(BATCH):
            x = dither(stack.pixels(index)[:, None], 2 / stack.top).to(device)
            logp = flow.log_prob(x, conditioned(stack, index).to(device), RK4(), o.steps, rule)
            found.append(bits_per_dimension(logp, x[0].numel(), 2 / stack.top).cpu())
    mean = torch.cat(found).double().reshape(o.draws, -1).mean(0)
    return float(mean.mean()), float(mean.std() / len(mean) ** 0.5) if len(mean) > 1 else math.nan


def place(flow: Flow) -> torch.device:
    """The device of the flow's network."""
    return next((p.device for p in flow.parameters()), torch.device("cpu"))


def conditioned(stack: Stack, index: Tensor) -> Context:
    """The context of the images ``index``: their classes, if they have any."""
    if stack.labels is None:
        return Context.full(len(index))
    return Context.full(len(index), label=stack.labels[index])


def baselines(found: Sets, o: Metrics) -> dict[str, float]:
    """Bits of the same held-out images under uniform noise, and under the Gaussian of the dithered training images with
    its covariance (images of at most 1,024 values)."""
    numbers = {"bits_uniform": math.log2(found.train.top + 1)}
    if math.prod(found.shape) <= 1024:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            train = dither(found.train.pixels(slice(20_000)), found.bin).flatten(1).double()
            x = dither(found.held_out.pixels(slice(o.likelihood)), found.bin).flatten(1).double()
        law = gaussian(train)
        numbers["bits_gaussian"] = float(bits_per_dimension(law.log_prob(x), x.shape[1], found.bin).mean())
    return numbers


def gaussian(x: Tensor) -> torch.distributions.MultivariateNormal:
    """The Gaussian with mean and covariance of the rows; dither keeps the covariance positive."""
    covariance = x.T.cov() + 1e-6 * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.distributions.MultivariateNormal(x.mean(0), covariance)


class Counted:
    """A network that counts its evaluations."""

    def __init__(self, network: Any) -> None:
        self.network, self.count = network, 0

    def __call__(self, x: Any, t: Tensor, context: Context) -> Any:
        self.count += 1
        return self.network(x, t, context)


@torch.no_grad()
def evaluations(flow: Flow, found: Sets, n: int) -> dict[str, float]:
    """How often the adaptive solver of order five evaluates the network for one batch of samples, by tolerance."""
    device = place(flow)
    context = conditioned(found.train, torch.arange(min(n, len(found.train)))).to(device)
    numbers: dict[str, float] = {}
    for tolerance in (1e-3, 1e-5):
        counted = Counted(flow.network)
        walk = Flow(flow.path, flow.prior, counted).to(device)
        end = 1.0 if not flow.path.singular else 1 - 1e-3  # then the final step
        times = torch.tensor([0.0, end] if end == 1 else [0.0, end, 1.0], dtype=torch.float64)
        walk.sample(context, Adaptive(tolerance, tolerance), times, seed=0)
        numbers[f"evaluations_{tolerance:.0e}".replace("e-0", "e-")] = counted.count
    return numbers
