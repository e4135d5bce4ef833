"""How far flows travel, by coupling: the same small network trained on Lennard-Jones clusters with each.

    python -m benchmarks.ways [--system lj13|lj55] [--batch 16] [--steps 400] [--couplings ot,equivariant_ot]

Every line trains an equivariant network of 30,000 weights for as many steps on the same batches, then draws new clouds
and measures the mean length of their ways from noise, over all coordinates together, by twelve Runge-Kutta steps. It
also prints how far noise and cloud lie apart after pairing, and where the energies of new clouds lie.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from fm_science import Context
from fm_science_domains.point_cloud import build
from fm_science_domains.point_cloud.boltzmann import ways
from fm_science_domains.point_cloud.energies import LennardJones


def trained(domain: Any, batch: int, steps: int) -> tuple[Any, float]:
    """The flow of a domain after some steps of Adam, and the mean distance of its pairs."""
    torch.manual_seed(0)
    flow, clouds = domain.flow(), torch.stack(domain.data.train.clouds)
    context = Context.full(batch, clouds.shape[1])
    optimizer = torch.optim.Adam(flow.parameters(), 2e-3, betas=(0.9, 0.99))
    pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    apart = []
    for step in range(steps):
        torch.manual_seed(step)
        x1 = clouds[torch.randint(len(clouds), (batch,))]
        pairs = domain.objective.pairs(flow, x1, context)
        apart.append((pairs.x1 - pairs.x0).flatten(1).norm(dim=1).mean())
        loss = sum(v.mean() for v in domain.objective.losses(flow, pairs).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        pace.step()
    return flow.eval(), float(torch.stack(apart).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--system", default="lj55", choices=("lj13", "lj55"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--couplings", default="independent,ot,equivariant_ot")
    parser.add_argument("--effort", type=float, default=0.25, help="of the reference sampler")
    parser.add_argument("--cache", help="folder of reference samples")
    o = parser.parse_args()
    torch.set_num_threads(1)
    points = 13 if o.system == "lj13" else 55
    data = {"source": o.system, "train": 1152, "held_out": 128, "effort": o.effort, "cache": o.cache}
    network = {"width": 32, "layers": 3, "mutual": True}
    print(f"{'coupling':<16} {'pairs apart':>12} {'path length':>16} {'straightness':>13} {'energy':>9} {'CPU s':>7}")
    for kind in o.couplings.split(","):
        start = time.process_time()
        flow, apart = trained(build(data=data, network=network, coupling={"kind": kind}), o.batch, o.steps)
        x, told = ways(flow, o.samples, points, steps=12)
        length = f"{told['path_length']:.2f} ± {told['path_length_error']:.2f}"
        energy = LennardJones(points)(x.double()).median().item()
        spent = time.process_time() - start
        print(
            f"{kind:<16} {apart:12.2f} {length:>16} {told['straightness']:13.3f} {energy:9.1f} {spent:7.0f}", flush=True
        )


if __name__ == "__main__":
    main()
