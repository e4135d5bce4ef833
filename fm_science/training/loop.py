"""Fit: train a domain's flow into a run folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only

from fm_science.data import step_seed, train_loader, validation_loader
from fm_science.domain import Domain
from fm_science.flow import Flow
from fm_science.record import RecordDomain
from fm_science.runs import CHECKPOINT, Run, save_statistics
from fm_science.symmetries import Symmetry
from fm_science.trained import Trained
from fm_science.training.callbacks import Curves, LastCheckpoint, Progress, Samples, read_metrics, warm_average
from fm_science.training.module import FlowModule
from fm_science.training.options import Optimizer, Trainer


def fit(
    domain: Domain, trainer: Trainer | None, optimizer: Optimizer | None, folder: Path | str,
    seed: int = 0, resume: bool = False, loggers: tuple[Any, ...] = (), start: Trained | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Flow:  # fmt: skip
    """Train ``domain`` and keep everything in ``folder``, a run that :func:`fm_science.load` and the command line take.

    Writes the options, the domain's statistics, ``metrics.csv``, ``curves.png``, ``checkpoints/last.ckpt`` (its
    ``state_dict`` holds the averaged weights) and samples of each validation. A resumed run continues bit for bit:
    batch k and the randomness of step k depend on (seed, k) alone. With ``max_minutes`` it cannot: there the learning
    rate follows the clock.

    Args:
        domain: what to train; its network is trained in place.
        trainer, optimizer: options; ``None``: the defaults.
        folder: the run folder, made where absent.
        seed: of data order, noise, times and samples. The network's first weights are the domain's affair.
        resume: continue from ``checkpoints/last.ckpt``, with the statistics of the run.
        loggers: more Lightning loggers beside the CSV one.
        start: a run or model whose weights, and statistics, training starts from.
        notes: plain values to keep among the run's options, such as the name of a preset.

    Returns:
        The trained flow with averaged weights.

    Raises:
        UserError: when the folder already holds something else, data cannot be read, or weights do not fit.
    """
    options, rule, folder = trainer or Trainer(), optimizer or Optimizer(), Path(folder)
    _prepare(domain, folder, resume, start, {
        **(notes or {}), "seed": seed, "trainer": asdict(options), "optimizer": asdict(rule),
    })  # fmt: skip
    (folder / "checkpoints").mkdir(exist_ok=True)
    domain.write_provenance(folder)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its banners say nothing about the run
    torch.set_flush_denormal(True)  # numbers too small to matter would slow a CPU down twentyfold
    if options.threads:
        torch.set_num_threads(options.threads)
    flow = domain.flow() if start is None else start.flow(domain).train()
    torch.manual_seed(step_seed(seed, 0))
    poses = () if domain.equivariant else tuple(domain.symmetries)
    module = FlowModule(flow, domain.objective, rule, options.max_steps, seed, poses)
    last = folder / CHECKPOINT if resume else None
    clock = Timer(duration=timedelta(minutes=options.max_minutes), verbose=False) if options.max_minutes else None
    if clock is not None:
        module.clock = lambda: clock.time_elapsed() / (60 * options.max_minutes)
    lightning = _lightning(domain, folder, options, seed, clock, [_logger(folder, last), *loggers])
    batches = _Batches(domain, domain.path.space, seed, options.validation_data, poses)
    with warnings.catch_warnings():
        for noise in (
            "num_workers",
            "does not have many workers",
            "LeafSpec",
            "treespec",
            "lr_scheduler",
            "Experiment logs",
        ):
            warnings.filterwarnings("ignore", message=f".*{noise}.*")
        lightning.fit(
            module, datamodule=batches, ckpt_path=str(last) if last else None, weights_only=True
        )  # fmt: skip
    flow.domain = domain
    return flow


def _prepare(
    domain: Domain, folder: Path, resume: bool, start: Trained | None, options: Mapping[str, Any]
) -> None:  # fmt: skip
    """Make the run, or take its statistics where it goes on; mistakes in what is sampled show before long work."""
    if start is not None:
        start.adopt(domain)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # Lightning sets it
        run = Run.open(folder) if resume else Run.create(folder, domain, options)
        run.adopt(domain)
        if resume:
            run.save({**run.config, **options})
            if run.statistics is None and not isinstance(domain, RecordDomain):
                save_statistics(domain, folder)
    with torch.random.fork_rng([]):
        domain.request(1)


class _Batches(pl.LightningDataModule):
    """The domain's data as loaders that know the trainer's step and rank."""

    def __init__(self, domain: Domain, space: Any, seed: int, held_out: int, poses: tuple[Symmetry, ...]) -> None:
        super().__init__()
        self.data, self.space, self.seed, self.held_out = domain.data, space, seed, held_out
        early = getattr(getattr(domain.objective, "coupling", None), "preparation", None)
        self.prepare = early(space, domain.prior, poses) if early is not None else None

    def train_dataloader(self) -> Any:
        trainer = self.trainer
        assert trainer is not None
        return train_loader(
            self.data, self.space, self.seed, lambda: trainer.global_step, trainer.global_rank, trainer.world_size,
            self.prepare,
        )  # fmt: skip

    def val_dataloader(self) -> Any:
        return validation_loader(self.data, self.space, self.held_out)


def _logger(folder: Path, last: Path | None) -> CSVLogger:
    """The CSV logger, with the rows of the resumed run up to its checkpoint."""
    rows = read_metrics(folder / "metrics.csv") if last else []
    step = torch.load(last, map_location="cpu", weights_only=True)["global_step"] if last else 0
    logger = CSVLogger(folder, name="", version="")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in rows:
            if row["step"] < step:
                logger.log_metrics({k: v for k, v in row.items() if k != "step"}, int(row["step"]))
        if rows:
            logger.save()
    return logger


def _lightning(
    domain: Domain, folder: Path, options: Trainer, seed: int, clock: Timer | None, loggers: list[Any]
) -> pl.Trainer:
    callbacks: list[Callback] = [
        *([clock] if clock is not None else []),
        Samples(domain, folder / "samples", options.validation_samples, seed),
        warm_average(options.ema),
        Curves(folder),
        LastCheckpoint(folder / "checkpoints", options.checkpoint_every),
    ]
    if options.progress:
        callbacks.append(Progress(options.max_steps, options.log_every))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pl.Trainer(
            accelerator=options.accelerator, devices=options.devices, strategy=options.strategy,
            precision=options.precision, max_steps=options.max_steps, max_epochs=-1,  # type: ignore[arg-type]
            gradient_clip_val=options.gradient_clip or None, use_distributed_sampler=False,
            val_check_interval=options.validate_every, check_val_every_n_epoch=None, num_sanity_val_steps=0,
            log_every_n_steps=min(options.log_every, options.max_steps), logger=loggers, callbacks=callbacks,
            inference_mode=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
