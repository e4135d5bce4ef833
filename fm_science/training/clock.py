"""Time: how much of it a run may use, how long a step lasts, and how many threads make it shortest."""

from __future__ import annotations

import os
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback


class Clock:
    """The time that a run has taken, in all its parts, and its limit.

    Args:
        minutes: its limit; 0: none.

    Attributes:
        reserve: seconds needed after the last step, for the last validation with its samples.
        before: seconds that earlier parts of a resumed run took.
    """

    def __init__(self, minutes: float = 0.0) -> None:
        self.limit = 60 * minutes
        self.reserve = self.before = 0.0
        self._start = time.monotonic()

    @property
    def bounded(self) -> bool:
        return self.limit > 0

    def elapsed(self) -> float:
        """Seconds since the run began, in all its parts."""
        return self.before + time.monotonic() - self._start

    def spent(self) -> float:
        """The share of the time for steps that has passed, 1 and more when it is over."""
        return self.elapsed() / max(self.limit - self.reserve, 1e-3) if self.bounded else 0.0

    def over(self) -> bool:
        """Whether all the time has passed."""
        return self.bounded and self.elapsed() >= self.limit


class Deadline(Callback):
    """Ends a run when its time is over, early enough for a last validation.

    Args:
        clock: the run's clock.
        evaluations: of the network in a validation with its samples, an estimate until one has been timed.
    """

    def __init__(self, clock: Clock, evaluations: float) -> None:
        self.clock, self.evaluations = clock, evaluations
        self._validation = self._step = 0.0
        self._timed = False

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.clock.over()

    def on_train_batch_start(self, *_: Any) -> None:
        self._step = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not self._timed:  # two thirds of a step are the gradient
            guess = self.evaluations / 3 * (time.monotonic() - self._step)
            self.clock.reserve = min(guess, 0.5 * self.clock.limit)
        over = self.clock.spent() >= 1
        trainer.should_stop = trainer.should_stop or (
            trainer.strategy.broadcast(over) if trainer.world_size > 1 else over
        )

    def on_validation_start(self, *_: Any) -> None:
        self._validation = time.monotonic()

    def on_validation_end(self, *_: Any) -> None:
        self.clock.reserve, self._timed = time.monotonic() - self._validation, True

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.clock.elapsed(), "reserve": self.clock.reserve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.clock.before, self.clock.reserve = state_dict["seconds"], state_dict.get("reserve", 0.0)


TRIAL = 4  #: steps with each number of threads, the first of which is not counted
GAIN = 1.5  #: how many times faster one thread must be


class Threads(Callback):
    """Tries the first steps with all threads and with one, and keeps all unless one is clearly faster.

    Threads that wait for each other lose more time than they save if other programs use the processors, or steps are
    small. The trial's steps are steps of the run. The choice is kept in checkpoints, since sums that are split over
    threads are rounded differently: a resumed run continues with the same threads.
    """

    def __init__(self) -> None:
        self.all = self.chosen = torch.get_num_threads()
        self.times: dict[int, list[float]] = {self.all: [], 1: []}
        self.decided = self.all == 1 or "OMP_NUM_THREADS" in os.environ
        self._start = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if module.device.type != "cpu" or trainer.global_step >= TRIAL:
            self.decided = True
        torch.set_num_threads(self.chosen)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if not self.decided:
            torch.set_num_threads(self.all if trainer.global_step < TRIAL else 1)
            self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.decided:
            return
        self.times[torch.get_num_threads()].append(time.perf_counter() - self._start)
        if trainer.global_step >= 2 * TRIAL:
            self.choose(trainer)

    def choose(self, trainer: pl.Trainer) -> None:
        """Keep the faster number, and print it."""
        many, one = (sum(times[1:]) for times in (self.times[self.all], self.times[1]))
        votes = torch.tensor(float(many > GAIN * one), device=trainer.strategy.root_device)
        if trainer.world_size > 1:  # all processes make the same choice
            votes = trainer.strategy.reduce(votes, reduce_op="mean")
        self.chosen = 1 if float(votes) > 0.5 else self.all
        self.decided = True
        torch.set_num_threads(self.chosen)
        if trainer.is_global_zero:
            other, ratio = (self.all, many / one) if self.chosen == 1 else (1, one / many)
            print(f"threads: {self.chosen} (a step with {other} takes {ratio:.1f} times as long)", flush=True)

    def on_train_end(self, *_: Any) -> None:
        torch.set_num_threads(self.all)

    def on_exception(self, *_: Any) -> None:
        torch.set_num_threads(self.all)

    def state_dict(self) -> dict[str, Any]:
        return {"threads": self.chosen} if self.decided else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "threads" in state_dict:
            self.chosen, self.decided = min(state_dict["threads"], self.all), True
