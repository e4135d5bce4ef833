"""Tuning: continue from a trained flow towards a reward, and store the result as a new run.

No data are read: the flow learns from its own samples, with the default request of the domain.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_science import __version__
from fm_science.contract import rewards
from fm_science.domain import Domain, option
from fm_science.errors import UserError
from fm_science.flow import Flow
from fm_science.objectives import AdjointMatching, PolicyGradient, Rewarded
from fm_science.record import RecordDomain
from fm_science.runs import CHECKPOINT, FILE, Run, claim, save_statistics
from fm_science.seeds import seeded
from fm_science.storage import save_yaml
from fm_science.trained import Trained

METHODS: dict[str, type[Rewarded]] = {"adjoint": AdjointMatching, "policy_gradient": PolicyGradient}
COLUMNS = ("step", "tune/loss", "tune/reward")


@dataclass(frozen=True)
class Tuning:
    """How a trained flow is tuned."""

    method: str = option(
        "adjoint", "adjoint follows the gradient of the reward; policy_gradient needs none, and tunes classes too",
        choices=tuple(METHODS),
    )  # fmt: skip
    strength: float = option(1.0, "multiplies the reward, which is in nats", low=0)
    updates: int = option(500, "updates of the weights", low=1)
    batch: int = option(64, "samples per update", low=1)
    lr: float = option(1e-4, "learning rate at the start; it falls to zero along a cosine", low=0)
    steps: int = option(20, "steps of the integration from noise to data", low=2)
    evaluations: int = option(4, "steps of the integration at which the network is trained, fewer than steps", low=1)
    clip: float = option(1.0, "largest norm of the gradient", low=0)
    log_every: int = option(20, "updates between rows of metrics.csv, and between checkpoints", low=1)


def tune(
    source: Trained, reward: Callable[[Any], Tensor], folder: Path, options: Tuning = Tuning(), seed: int = 0,
    notes: Mapping[str, Any] | None = None,
) -> Flow:  # fmt: skip
    """Tune a trained flow towards a reward and store it in ``folder``, a run for ``fm_science.load`` and the command
    line. It is saved every ``log_every`` updates.

    Args:
        source: a run or a model.
        reward: ``(x1) -> (B,)`` of states at t = 1, differentiable unless the method is policy_gradient.
        folder: the new run.
        options: of tuning.
        seed: of all random numbers.
        notes: plain values to store with the options of the run, such as the name of the reward.

    Raises:
        UserError: when the folder is not empty, the flow cannot be tuned, or the reward does not fit.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    domain = source.domain()
    flow = source.flow(domain).to(device)
    try:
        objective = METHODS[options.method](
            reward, options.strength, steps=options.steps, evaluations=options.evaluations
        )  # fmt: skip
        with seeded(seed, device):
            context = domain.request(2).to(device)
            objective.check(flow, flow.path.bind(context, flow.prior))
            objective.check_reward(flow.sample(context, steps=2))
    except (TypeError, ValueError) as error:
        raise UserError(f"{source.label} cannot be tuned so: {error}") from error
    _prepare(source, domain, folder, {**(notes or {}), "tuned": {"from": source.label, **vars(options), "seed": seed}})
    with seeded(seed, device):
        _run(flow, objective, domain, folder, options, device)
    return flow.eval()


def _prepare(source: Trained, domain: Domain, folder: Path, notes: Mapping[str, Any]) -> None:
    """A new run folder with the options and the statistics of the old one."""
    claim(folder)
    if not isinstance(domain, RecordDomain):
        save_statistics(domain, folder)
    save_yaml({**source.config, "version": __version__, "resume": None, "run": str(folder), **notes}, folder / FILE)
    (folder / CHECKPOINT.parent).mkdir(exist_ok=True)
    Run.open(folder)


def _run(
    flow: Flow, objective: Rewarded, domain: Domain, folder: Path, options: Tuning, device: str
) -> None:  # fmt: skip
    weights = [p for p in flow.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.lr, betas=(0.9, 0.99), weight_decay=0.0)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.updates)
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for step in range(1, options.updates + 1):
            context = domain.request(options.batch).to(device)
            losses = objective(flow, flow.noise(context), context)
            loss = torch.stack(list(losses.values())).sum(0).mean()
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(weights, options.clip)
            if not bool(norm.isfinite()):
                raise UserError(f"the gradient is not finite at update {step}: a smaller lr= or strength= may help")
            optimizer.step()
            decay.step()
            if step % options.log_every == 0 or step == options.updates:
                earned = float(rewards(objective.reward, flow.sample(context)).mean())
                rows.writerow((step, float(loss.detach()), earned))
                file.flush()
                progress = f"loss {float(loss.detach()):.4g}, reward {earned:.4g}"
                print(f"update {step} of {options.updates}: {progress}", flush=True)
                flow.save(folder / CHECKPOINT)
