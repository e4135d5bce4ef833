"""A flow is a path, a prior and a network: the thing that is trained, saved and sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.contract import admit, check_context
from fm_science.likelihood import Divergence, ExactTrace, forward, integrate_log_prob, reverse_grid, start_before_end
from fm_science.networks import Network, NetworkFunction, TransportMap, as_network
from fm_science.paths import Field, Path
from fm_science.posterior import PosteriorGuided, check_untied
from fm_science.priors import Prior, cast
from fm_science.sampler import Predictor, check_density, check_map, reversed_velocity
from fm_science.sampler import Sampler as Sampler
from fm_science.seeds import seeded
from fm_science.solvers import RK4, Predict, Solver, grid_after, uniform_grid
from fm_science.state import Context, State, leaves
from fm_science.stored import Stored
from fm_science.tables import listing


class Flow(Stored):
    """Path + prior + network.

    Args:
        path: the path of samples, and what the network's output means.
        prior: the distribution of their start.
        network: a module, or any callable ``network(x, t, context) -> raw``; closed-form ones need no training.
        sampler: how to sample by default.
        independent: whether noise and data were independent in training; set by objectives, and saved.
        independent_parts: parts for which they were, if they were not for others; also saved.
        domain: the domain of this flow, if it was built or loaded by one.

    Raises TypeError when the sampler's path gives the network's output another meaning than the trained one.
    """

    network: Network

    def __init__(
        self, path: Path, prior: Prior, network: NetworkFunction, sampler: Sampler | None = None, *,
        independent: bool = True, independent_parts: Sequence[str] = (), domain: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.path, self.prior, self.network = path, prior, as_network(network)
        self.independent, self.independent_parts, self.domain = independent, tuple(independent_parts), domain
        self.sampler = sampler or Sampler()
        self.learned = nn.ModuleList(path.modules())
        if self.sampler.path is not None:
            self.sampler.path.check_compatible(path)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of states: that of the weights, but never less than single precision."""
        return self.weight_dtype or torch.get_default_dtype()

    @property
    def weight_dtype(self) -> torch.dtype | None:
        """The dtype that the weights require of states; ``None`` where there are none."""
        weights = (p.dtype for p in self.parameters() if p.is_floating_point())
        first = next(weights, None)
        return None if first is None else torch.promote_types(first, torch.float32)

    def __repr__(self) -> str:
        return f"Flow({', '.join(f'{name}={value}' for name, value in self.described().items())})"

    def _repr_html_(self) -> str:
        return listing(f"{type(self).__name__}", self.described())

    def described(self) -> dict[str, str]:
        """What it is made of, in a few words each."""
        size = sum(weight.numel() for weight in self.parameters())
        domain = {} if self.domain is None else {"domain": str(self.domain.name)}
        network = f"{type(self.network).__name__} of {size:,} parameters"
        return {**domain, "space": repr(self.path.space), "path": type(self.path).__name__,
                "prior": repr(self.prior), "network": network}  # fmt: skip

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        """The network's raw output at ``x`` and time ``t`` ``(B,)``."""
        return self.network(x, t, context)

    @property
    def sampled(self) -> Network:
        """The network for sampling: wrapped if the sampler has a wrapper."""
        wrap = self.sampler.wrap_network
        return self.network if wrap is None else as_network(wrap(self.network))

    def noise(self, context: Context) -> State:
        """A sample of the state at t = 0, one for each sample of ``context``."""
        space = self.path.space.bind(context)
        x = self.path.source(self.prior).sample(space, context)
        return cast(space, x, torch.empty((), dtype=self.dtype, device=context.mask.device))

    def add_noise(self, x: State, context: Context, t: float) -> State:
        """Data ``x`` at t = 1 moved back to time ``t`` in [0, 1) along the path of sampling, with noise drawn from the
        prior: a sample of the state at time t of a path that ends at ``x``. Raises what :meth:`transport` does
        if ``x`` is not a batch of data."""
        path = (self.sampler.path or self.path).bind(context, self.prior)
        x = admit(self, x, context)
        return path.sample(self.noise(context), x, leaves(x)[0].new_full((context.size,), t))

    def grid(self, steps: int | Tensor | None = None, from_time: float = 0.0) -> Tensor:
        """The times of an integration that begins at ``from_time``: the grid of ``steps`` (default the sampler's) after
        it. Raises ValueError if ``steps`` is not a grid, or ends before ``from_time``."""
        times = uniform_grid(self.sampler.steps if steps is None else steps)
        return grid_after(times, from_time) if from_time else times

    @torch.no_grad()
    def sample(
        self, context: Context, solver: Solver | None = None, steps: int | Tensor | None = None,
        seed: int | None = None, *, start: State | None = None, from_time: float = 0.0,
    ) -> State:  # fmt: skip
        """New data; or with ``start``, variants of data (Meng et al. 2022, SDEdit): it is moved back to ``from_time``
        by :meth:`add_noise`, and from there integrated to t = 1. The later ``from_time``, the more similar the
        variants.

        Args:
            context: what to make; its mask fixes how many samples of which sizes.
            solver: default the sampler's.
            steps: number of steps of the whole integration, or a tensor of times in [0, 1]; default the sampler's.
                Variants use those after ``from_time``.
            seed: with a seed, the same seed, context and batch size give the same sample, and torch's global generator
                is left as it was.
            start: data at t = 1, a state of the shape of the result.
            from_time: where variants begin, in [0, 1).

        Returns:
            A state at t = 1.

        Raises:
            ValueError: when ``steps`` is not a grid, or ``from_time`` is not one of its times or is given without
                ``start``.
            TypeError: when the solver does not fit the space.
        """
        check_context(context)
        if start is None and from_time:
            raise ValueError(f"from_time={from_time} needs the data that variants begin with: give start as well.")
        times = self.grid(steps, from_time)
        with seeded(seed, context.mask.device):
            x = self.noise(context) if start is None else self.add_noise(start, context, from_time)
            return self.transport(x, context, solver, times)

    def transport(
        self, x: State, context: Context, solver: Solver | None = None, steps: int | Tensor | None = None,
        reverse: bool = False,
    ) -> State:  # fmt: skip
        """Integrate noise ``x`` to data, or with ``reverse`` data to noise.

        Raises:
            ValueError: when ``steps`` is not a grid, or the prediction is not defined at one of its times.
            TypeError: when the solver does not fit the path, before the first step: ``reverse`` on spaces that are not
                smooth, exchange of noise without a score.
        """
        for state in self._walk(x, context, solver, steps, reverse, whole=False):
            x = state
        return x

    def trajectory(
        self, x: State, context: Context, solver: Solver | None = None, steps: int | Tensor | None = None,
        reverse: bool = False,
    ) -> Iterator[State]:  # fmt: skip
        """The states of :meth:`transport` after each step, one by one."""
        return self._walk(x, context, solver, steps, reverse, whole=True)

    def _walk(
        self, x: State, context: Context, solver: Solver | None, steps: int | Tensor | None, reverse: bool, whole: bool
    ) -> Iterator[State]:
        """The states after each step, or (not ``whole``) after as few as the solver needs to reach the end."""
        solver = solver if solver is not None else self.sampler.solver
        times = uniform_grid(steps if steps is not None else self.sampler.steps)
        chosen = self.path if reverse or self.sampler.path is None else self.sampler.path
        path = chosen.bind(context, self.prior)
        self.check(solver, path, reverse)
        x = admit(self, x, context, "data" if reverse else "noise")
        if reverse and isinstance(self.sampled, TransportMap):
            yield self.sampled.to_noise(x)[0]
            return
        predict = Predictor(self.sampled, path, context)
        walked: Path = path
        ask: Predict = predict
        if reverse:
            path.check(times)
            grid, times = times, reverse_grid(path, times, x)
            x, _ = start_before_end(path, grid, times, x, self.independent)
            walked, ask = Field(path.space), reversed_velocity(path, predict)
        for state in solver.trajectory(walked, ask, x, times if whole else solver.waypoints(walked, times)):
            yield state
            predict.advance()
        predict.logits.finish()

    def check(self, solver: Solver, path: Path, reverse: bool = False) -> None:
        """Raises TypeError if a solver does not fit what was trained: it needs a score but noise depended on the data,
        or it needs a flow map and there is none. ``path`` is the bound path of the integration."""
        if reverse and path.steep:
            raise TypeError(f"the velocity of {path!r} is infinite at t = 0, so no walk leads back there.")
        if isinstance(self.sampled, TransportMap):
            if not solver.two_times:
                raise TypeError(f"{type(self.sampled).__name__} jumps from noise to data at once: use FlowMap().")
            return
        if solver.two_times:
            check_map(solver, self.sampled)
            if reverse:
                raise TypeError(f"{solver!r} maps noise to data only. Use Heun() or RK4() to go back.")
        if isinstance(self.sampled, PosteriorGuided) and not self.independent:
            check_untied(path, self.independent_parts)
        if not solver.stochastic or self.independent:
            return
        stirred = solver.renoised_part(path)
        parts = stirred.parts or {"": stirred}
        if any(part.score_needs_independence for name, part in parts.items() if name not in self.independent_parts):
            raise TypeError(
                f"{type(solver).__name__} draws new noise, and this flow was trained with a coupling that ties noise "
                "to data: then there is no score, and new noise is not that of the data. Use Euler(), or train with "
                "Independent()."
            )

    def log_prob(
        self, x: State, context: Context, solver: Solver = RK4(), steps: int | Tensor = 100,
        divergence: Divergence = ExactTrace(), seed: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Log-density of data in nats, with respect to the Riemannian volume of the space over real free sites, by
        integrating the divergence back to the noise. Gradients are recorded unless they are turned off.

        Args:
            x: data at t = 1.
            context: their context.
            solver: any solver for smooth spaces; its errors are the density's.
            steps: number of steps or a tensor of times in [0, 1]. Where the velocity is undefined at t = 1, a number
                means steps that shrink towards the data, and the integration starts 1e-5 before it (1e-3 in float32). A
                grid that ends before 1 gives the density of the distribution at its end.
            divergence: how the trace is computed; all except ExactTrace() are estimates.
            seed: of the probes of an estimate; torch's global generator is left as it was.

        Returns:
            ``(B,)``.

        Raises:
            TypeError: on spaces that are not smooth, for self-conditioned networks (whose velocity depends on the
                steps) and for priors without a density.
        """
        with seeded(seed, context.mask.device):
            path = self.path.bind(context, self.prior)
            check_density(self.network)
            x = admit(self, x, context)
            prior = path.source(self.prior)
            if isinstance(self.network, TransportMap):  # which knows its own volume
                noise, volume = self.network.to_noise(x)
                return prior.log_prob(path.space, noise) + volume
            predict = Predictor(self.network, path, context)
            return integrate_log_prob(path, predict, x, prior, solver, steps, divergence, self.independent).logp

    def sample_with_log_prob(
        self, context: Context, solver: Solver = RK4(), steps: int | Tensor = 100,
        divergence: Divergence = ExactTrace(), seed: int | None = None,
    ) -> tuple[State, Tensor]:  # fmt: skip
        """New data and their log-density in one integration, at the cost of the density alone. The sampler of the flow
        is not used: the density is that of the trained network on the trained path. Gradients are recorded unless they
        are turned off.

        Args:
            context: what to make; its mask fixes how many samples of which sizes.
            solver, steps, divergence: as in :meth:`log_prob`; times must start at 0.
            seed: with a seed, the same seed, context and batch size give the same sample.

        Returns:
            A state at t = 1, and its log-density in nats, ``(B,)``, equal to :meth:`log_prob` of the state up to the
            errors of the solver.

        Raises:
            TypeError: as :meth:`log_prob`.
            ValueError: when times do not start at 0.
        """
        check_context(context)
        check_density(self.network)
        with seeded(seed, context.mask.device):
            path = self.path.bind(context, self.prior)
            x, prior = self.noise(context), path.source(self.prior)
            if isinstance(self.network, TransportMap):
                data, volume = self.network.to_data(x)
                return data, prior.log_prob(path.space, x) - volume
            predict = Predictor(self.network, path, context)
            return forward(path, predict, x, prior, solver, steps, divergence, self.independent)
