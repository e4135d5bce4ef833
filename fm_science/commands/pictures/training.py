"""Pictures of training: gradients with and without conditioning, and pairs by size of the batch."""

from __future__ import annotations

from typing import Any

import torch

from fm_science.commands.pictures.lines import Plane
from fm_science.commands.pictures.mixture import Shown, ring
from fm_science.couplings import Transport
from fm_science.figures import COLOURS, INK, figure
from fm_science.schedules import Linear
from fm_science.spaces import Euclidean
from fm_science.state import Context


def gradients() -> Shown:
    """The gradient of conditional flow matching is that of flow matching, up to noise that averages out."""
    law, rng = ring(), torch.Generator().manual_seed(0)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = Plane()
    sizes, gaps = [2**k for k in range(6, 18)], []
    weights = list(network.parameters())
    total = [torch.zeros(sum(w.numel() for w in weights)) for _ in range(2)]
    done = 0
    for size in sizes:
        n = size - done
        x0, x1, t = torch.randn(n, 1, 2, generator=rng), law.draw(n, seed=size), torch.rand(n, generator=rng)
        x = x0 + t[:, None, None] * (x1 - x0)
        u = network(x, t, Context.full(n))
        for k, target in enumerate((law.velocity(Linear(), x, t), x1 - x0)):
            slopes = torch.autograd.grad((u - target).square().sum(), weights, retain_graph=k == 0)
            total[k] += torch.cat([g.flatten() for g in slopes])
        done = size
        gaps.append(float((total[1] - total[0]).norm() / total[0].norm()))
    made = figure(5.5, 3.4)
    axes = made.subplots()
    axes.loglog(sizes, gaps, "o-", ms=4, color=COLOURS[0], label="|CFM - FM| / |FM|")
    axes.loglog(sizes, [gaps[-1] * (sizes[-1] / s) ** 0.5 for s in sizes], ":", color=INK, label="one over the root")
    axes.set(title="gradients of FM and CFM on the same points", xlabel="points", ylabel="relative gap")
    axes.legend()
    return Shown(made, (f"relative gap at {sizes[-1]:,} points: {gaps[-1]:.1e} (0 in the limit)",))


def batches() -> Shown:
    """Mean squared length of the pairs of minibatch optimal transport, by size of the batch."""
    law, total, sizes = ring(), 2048, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]
    x0, x1 = torch.randn(total, 1, 2, generator=torch.Generator().manual_seed(0)), law.draw(total)
    lengths = []
    for size in sizes:
        found, some = 0.0, min(total, max(size, 512))
        for a, b in zip(x0[:some].split(size), x1[:some].split(size), strict=True):
            context = Context.full(size)
            p, q, _ = Transport().pair(Euclidean(2).bind(context), a, b, context)
            found += float((p - q).square().sum()) / some
        lengths.append(found)
    made = figure(5.5, 3.4)
    axes = made.subplots()
    axes.semilogx(sizes, lengths, "o-", ms=4, base=2, color=COLOURS[0])
    axes.axhline(lengths[-1], color=INK, ls=":", lw=1)
    axes.set(title="pairs of minibatch transport", xlabel="size of the batch", ylabel="mean squared length")
    axes.set_ylim(0)
    return Shown(made, (f"batch 1: {lengths[0]:.2f}; 64: {lengths[6]:.2f}; {total}: {lengths[-1]:.2f}",))


PICTURES: dict[str, Any] = {"gradients": gradients, "batches": batches}
