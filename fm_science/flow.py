"""A flow is a path, a prior and a network: the thing that is trained, saved and sampled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.errors import UserError
from fm_science.paths import Field, Path
from fm_science.priors import Prior
from fm_science.solvers import Heun, Solver, uniform_grid
from fm_science.state import Context, State, scale, tree_map


@dataclass(frozen=True)
class Sampler:
    """How a flow is sampled when nothing else is said.

    Args:
        solver: the rule for a step.
        steps: number of steps, or a tensor of times.
        path: the path that is walked; ``None``: the one that was trained. Another schedule here anneals the walk.
    """

    solver: Solver = Heun()
    steps: int | Tensor = 100
    path: Path | None = None


class Predictor:
    """The network seen from a solver: it hands each evaluation the endpoint that was predicted one step earlier."""

    def __init__(self, network: Callable[..., Any], path: Path, context: Context) -> None:
        self.network, self.path, self.context = network, path, context
        self.remembers = getattr(network, "self_conditioned", False)
        self._next: Any = None

    def __call__(self, x: State, t: Tensor) -> Any:
        raw = self.network(x, t, self.context)
        if self.remembers and self._next is None:
            self._next = self.path.endpoint(raw, x, t)
        return raw

    def advance(self) -> None:
        """A step has ended: its first prediction becomes the previous one."""
        if self._next is not None:
            self.context, self._next = replace(self.context, previous=self._next), None


class Flow(nn.Module):
    """Path + prior + network.

    Args:
        path: how samples travel, and what the network's output means.
        prior: where they start.
        network: a module, or any callable ``network(x, t, context) -> raw``; closed-form ones need no training.
        sampler: how to sample when a call does not say.
    """

    domain: Any = None  #: the science this flow belongs to, where it was built or loaded by one

    def __init__(self, path: Path, prior: Prior, network: Callable[..., Any], sampler: Sampler | None = None) -> None:
        super().__init__()
        self.path, self.prior, self.network = path, prior, network
        self.sampler = sampler or Sampler()
        self.learned = nn.ModuleList(path.modules())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of states: that of the weights, but never less than single precision."""
        weights = [p.dtype for p in self.parameters() if p.is_floating_point()]
        return torch.promote_types(weights[0], torch.float32) if weights else torch.get_default_dtype()

    def noise(self, context: Context) -> State:
        """A draw of the state at t = 0, one a sample of ``context``."""
        x = self.path.source(self.prior).sample(self.path.space, context)
        return tree_map(lambda leaf: leaf.to(self.dtype), x)

    @torch.no_grad()
    def sample(
        self, context: Context, solver: Solver | None = None, steps: int | Tensor | None = None, seed: int | None = None
    ) -> State:
        """New data.

        Args:
            context: what to make; its mask fixes how many samples of which sizes.
            solver: default the sampler's.
            steps: number of steps or a tensor of times in [0, 1]; default the sampler's.
            seed: with a seed, the same seed, context and batch size give the same draw, and torch's global generator
                is left as it was.

        Returns:
            A state at t = 1.

        Raises:
            ValueError: when ``steps`` is no grid.
            TypeError: when the solver does not fit the space.
        """
        with _forked(seed, context):
            return self.transport(self.noise(context), context, solver, steps)

    def transport(
        self, x: State, context: Context, solver: Solver | None = None, steps: int | Tensor | None = None,
        reverse: bool = False,
    ) -> State:  # fmt: skip
        """Carry noise ``x`` to data, or with ``reverse`` data to noise. Raises TypeError for ``reverse`` on spaces that
        are not smooth."""
        for state in self.trajectory(x, context, solver, steps, reverse):
            x = state
        return x

    def trajectory(
        self, x: State, context: Context, solver: Solver | None = None, steps: int | Tensor | None = None,
        reverse: bool = False,
    ) -> Iterator[State]:  # fmt: skip
        """The states of :meth:`transport` after each step, one by one."""
        solver = solver if solver is not None else self.sampler.solver
        times = uniform_grid(steps if steps is not None else self.sampler.steps)
        chosen = self.path if reverse or self.sampler.path is None else self.sampler.path
        path = chosen.bind(context, self.prior)
        predict = Predictor(self.network, path, context)
        if reverse:
            path, field, times = Field(path.space), _reversed(path, predict), 1 - times.flip(0)
        for state in solver.trajectory(path, field if reverse else predict, x, times):
            yield state
            predict.advance()

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the weights (only tensors, so that loading never runs code)."""
        torch.save(self.state_dict(), file)

    def load(self, file: str | os.PathLike[str]) -> Flow:
        """Fill the weights from :meth:`save` or from a checkpoint of a run. Raises UserError when they do not fit."""
        file = FilePath(file)
        if not file.is_file():
            raise UserError(
                f"no weights at {str(file)!r}: expected a file written by Flow.save or a checkpoint of a run."
            )
        weights = torch.load(file, map_location="cpu", weights_only=True)
        weights = weights.get("state_dict", weights)
        prefix = "flow." if any(k.startswith("flow.") for k in weights) else ""
        try:
            self.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"the weights in {str(file)!r} do not fit this network: {reason}") from error
        return self


def _reversed(path: Path, predict: Predictor) -> Callable[[Any, Tensor], Any]:
    """The velocity field of a path run backwards in time."""
    if not path.space.smooth:
        raise TypeError("a flow on classes cannot be reversed: jumps are random. Only smooth spaces can.")

    def field(x: Any, r: Tensor) -> Any:
        return scale(-1.0, path.velocity(predict(x, 1 - r), x, 1 - r))

    return field


class _forked:
    """Torch's generators seeded inside and restored after; does nothing without a seed."""

    def __init__(self, seed: int | None, context: Context) -> None:
        devices = [context.mask.device] if context.mask.is_cuda else []
        self.seed, self.fork = seed, torch.random.fork_rng(devices, enabled=seed is not None)

    def __enter__(self) -> None:
        self.fork.__enter__()
        if self.seed is not None:
            torch.manual_seed(self.seed)

    def __exit__(self, *error: Any) -> None:
        self.fork.__exit__(*error)
