"""The options of training: the groups ``trainer.*`` and ``optimizer.*`` of every domain."""

from __future__ import annotations

from dataclasses import dataclass

from fm_science.domain import option

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class Trainer:
    """How long, on which devices and with which safeguards to train."""

    max_steps: int = option(10_000, "total training steps, including those before a resume", low=1)
    max_minutes: float = option(
        0.0,
        "stop, with the learning rate decayed, after this time, including validations; 0: no limit",
        "minutes",
        low=0,
    )
    gradient_clip: float = option(1.0, "largest norm of the gradient", low=0)
    max_skipped: int = option(
        20, "successive skipped steps (gradient not finite) that end the run as failed; 0: never", low=0
    )
    ema: float = option(0.999, "decay of the averaged weights that are sampled, each step", low=0, high=1)
    validate_every: int = option(1_000, "steps between validations (loss by time, samples, their metrics)", low=1)
    validation_data: int = option(256, "held-out data for the validation loss", low=1)
    validation_samples: int = option(16, "samples drawn and measured in each validation; 0: none", low=0)
    checkpoint_every: int = option(200, "steps between checkpoints", low=1)
    checkpoint_minutes: float = option(
        10.0, "time between checkpoints if steps are slow; 0: by steps only", "minutes", low=0
    )
    keep_checkpoints: int = option(
        2, "newest checkpoints to keep: if one is damaged, the one before it is used", low=1
    )
    log_every: int = option(20, "steps between rows of metrics.csv", low=1)
    accelerator: str = option("auto", "what to compute on", choices=("auto", "cpu", "gpu"))
    devices: int | str = option("auto", "number of devices, or auto")
    nodes: int = option(1, "machines that take part, started by torchrun or srun", low=1)
    strategy: str = option("auto", "Lightning strategy: auto, ddp, ...")
    precision: str = option(
        "32-true", "precision of the network's arithmetic; geometry and weights stay single", choices=PRECISIONS
    )
    threads: int | str = option(
        "auto", "threads of the CPU; auto: the faster of all and one in the first steps; 0: torch's choice"
    )
    progress: bool = option(True, "show a progress bar")


@dataclass(frozen=True)
class Optimizer:
    """AdamW with a linear warm-up and a cosine decay towards the end of the run, by steps or by time.

    A run of open length keeps its rate (a small ``decay``), so that it can continue from any checkpoint; the decay at
    the end then takes a tenth or a fifth of the steps (Hägele et al. 2024).
    """

    lr: float = option(1e-3, "learning rate after the warm-up", low=0)
    warmup: int = option(100, "steps of linear warm-up", low=0)
    final: float = option(0.05, "learning rate at the end, as a fraction of lr", low=0, high=1)
    decay: float = option(1.0, "share of the run, at its end, in which the learning rate decays", low=0.001, high=1)
    weight_decay: float = option(0.0, "decoupled weight decay", low=0)
    beta1: float = option(0.9, "decay of the mean of gradients", low=0, high=1)
    beta2: float = option(0.99, "decay of the mean of squared gradients", low=0, high=1)
