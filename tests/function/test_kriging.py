"""Noise that knows the observations: its draws and its mean are those of exact regression."""

from __future__ import annotations

from typing import ClassVar

import torch

from fm_science import Context, Functions, GaussianProcess, Matern
from fm_science_domains.function import build
from fm_science_domains.function.conditional import GUESS, show
from fm_science_domains.function.exact import regression
from fm_science_domains.function.kriging import Conditioned, ConditionedNetwork, Regression
from fm_science_domains.function.noise import Factored
from fm_science_domains.function.sensors import places, quadrature

KERNEL, NOISE, N = Matern(1.5, 0.3, period=2.0), 0.2, 15
AT = torch.tensor([2, 7, 13])
VALUES = torch.tensor([1.5, -1.0, 0.4])


def observed(count: int, channels: int = 1) -> Context:
    """Half of the samples were observed at three sensors, the others nowhere."""
    x = places((N,), [False]).float()
    cond = {"coords": x.expand(count, -1, -1), "weights": quadrature((N,), [False]).float().expand(count, -1)}
    context = Context(torch.ones(count, N, dtype=torch.bool), cond)
    seen = torch.zeros(count, N, dtype=torch.bool)
    seen[: count // 2, AT] = True
    given = torch.zeros(N, channels).index_copy(0, AT, VALUES[:, None].expand(-1, channels))
    return show(context, seen, given.expand(count, -1, -1))


def test_draws_are_those_of_exact_regression() -> None:
    count = 2000
    known = Regression(GaussianProcess(KERNEL), NOISE)
    context, x = observed(count), places((N,), [False])
    torch.manual_seed(0)
    draws = Conditioned(known).sample(Functions(1), context)[..., 0].double()  # type: ignore[call-overload, index]
    mean, covariance = regression(KERNEL, x, x[AT], VALUES, NOISE)
    given, free = draws[: count // 2], draws[count // 2 :]
    std = covariance.diagonal().sqrt()
    assert float(((given.mean(0) - mean) / std).abs().max()) < 5 / (count // 2) ** 0.5
    assert float((given.std(0) / std - 1).abs().max()) < 5 / count**0.5
    assert float((free.std(0) - 1).abs().max()) < 5 / count**0.5
    guess = known.mean(context)
    assert guess is not None
    torch.testing.assert_close(guess[0, :, 0].double(), mean, atol=1e-5, rtol=1e-4)
    assert not guess[count // 2 :].any()


def test_functions_beside_the_kernel_tell_channels_of_each_other() -> None:
    """One weight moves both channels: what is seen of it in three sensors is known everywhere, with its sign."""
    shape = torch.stack([torch.ones(N), -torch.ones(N)], -1)[:, None].double()
    fine = GaussianProcess(Matern(0.5, 0.01, 0.01))
    anchors, smooth = places((N,), [False]), Matern(2.5, 0.3)
    gram = smooth.covariance(anchors[:, None] - anchors)
    weights = torch.linalg.solve(gram, 3 * shape.flatten(1)).view_as(shape)
    known = Regression(Factored(fine, anchors, smooth, weights), 0.01)
    context = observed(2, channels=2)
    given = torch.tensor([2.0, -2.0]).expand(2, N, 2)
    guess = known.mean(show(context, context.cond["seen"] > 0.5, given))
    assert guess is not None
    torch.testing.assert_close(guess[0], given[0], atol=0.02, rtol=0)


def test_a_network_is_shown_the_guess_once_for_all_steps() -> None:
    calls = []

    class Inner(torch.nn.Module):
        reads: ClassVar = {GUESS: 1}

        def forward(self, x, t, context):
            calls.append(context.cond.get(GUESS))
            return x

    net, context = ConditionedNetwork(Inner(), Regression(GaussianProcess(KERNEL), NOISE)), observed(4)
    for _ in range(2):
        net(torch.zeros(4, N, 1), torch.zeros(4), context)
    assert calls[0] is calls[1]
    assert calls[0].shape == (4, N, 1)
    bare = Context(context.mask, {k: v for k, v in context.cond.items() if k in ("coords", "weights")})
    net(torch.zeros(4, N, 1), torch.zeros(4), bare)
    assert calls[2] is None


def test_a_flow_that_completes_starts_from_the_posterior() -> None:
    domain = build(data={"grid": 17, "train": 200, "held_out": 12}, network={"width": 8, "layers": 1, "modes": 4},
                   objective={"shown": "1-5", "shown_noise": 0.1})  # fmt: skip
    context = domain.request(64)
    seen = torch.zeros(64, 17, dtype=torch.bool).index_fill(1, torch.tensor([3, 12]), True)
    x = domain.flow().noise(show(context, seen, torch.full((64, 17, 1), 1.5)))
    assert float((x[:, [3, 12]] - 1.5).abs().max()) < 6 * 0.15  # type: ignore[call-overload, index]
    assert float(domain.flow().noise(context)[:, 3].std()) > 0.6  # type: ignore[call-overload, index]
