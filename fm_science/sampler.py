"""How a flow is sampled: the rule of a step, the number of steps, and the network as a solver calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from fm_science.contract import Logits, check_output
from fm_science.declarations import renamed_keywords, warn_renamed
from fm_science.networks import Network, NetworkFunction
from fm_science.paths import Path
from fm_science.posterior import PosteriorGuided
from fm_science.solvers import Heun, Solver
from fm_science.state import Context, State, scale


@renamed_keywords(wrap="wrap_network")
@dataclass(frozen=True)
class Sampler:
    """How a flow is sampled by default.

    Args:
        solver: the rule for one step.
        steps: number of steps, or a tensor of times.
        path: the path that is integrated; ``None``: the one that was trained. Another schedule here anneals the
            integration.
        wrap_network: the wrapper of the network in sampling, such as ``lambda network: Guided(network, 2.0)``.
    """

    solver: Solver = Heun()
    steps: int | Tensor = 100
    path: Path | None = None
    wrap_network: Callable[[Network], NetworkFunction] | None = None

    @property
    def wrap(self) -> Callable[[Network], NetworkFunction] | None:
        """The old name of ``wrap_network``, for one release."""
        warn_renamed("Sampler.wrap", "wrap_network")
        return self.wrap_network


class Predictor:
    """The network as a solver uses it: each evaluation gets the endpoint that was predicted one step earlier."""

    def __init__(self, network: Network, path: Path, context: Context) -> None:
        guided = network.along(path) if isinstance(network, PosteriorGuided) else network
        self.network, self.path, self.context = guided, path, context
        self.logits = Logits(path)
        self._next: State | None = None

    def __call__(self, x: State, t: Tensor, t_end: Tensor | None = None) -> State:
        raw = self.network(x, t, self.context if t_end is None else replace(self.context, t_end=t_end))
        check_output(self.path, raw)
        self.logits(raw, t)
        if self.network.self_conditioned and self._next is None:
            self._next = self.path.endpoint(raw, x, t)
        return raw

    def advance(self) -> None:
        """A step has ended: its first prediction becomes the previous one."""
        if self._next is not None:
            self.context, self._next = replace(self.context, previous=self._next), None


def reversed_velocity(path: Path, predict: Predictor) -> Callable[[State, Tensor], State]:
    """The velocity field of a path run backwards in time."""
    if not path.space.smooth:
        raise TypeError("a flow on classes cannot be reversed: jumps are random. Only smooth spaces can.")

    def field(x: State, r: Tensor) -> State:
        return scale(-1.0, path.velocity(predict(x, 1 - r), x, 1 - r))

    return field


def check_map(solver: Solver, network: Network) -> None:
    """Raises TypeError when a network has no flow map for a solver that uses one."""
    if not network.two_times:
        raise TypeError(
            f"{solver!r} needs a two-time network, and {type(network).__name__} has one time "
            "only. Use Euler() or Heun(), or train a network with `two_times = True` by FlowMapMatching()."
        )
    if network.self_conditioned:
        raise TypeError(f"{solver!r} takes jumps that end at no endpoint: a self-conditioned network has no map.")


def check_density(network: Network) -> None:
    """Raises TypeError for a network whose velocity depends on earlier steps."""
    if network.self_conditioned:
        raise TypeError(
            "a self-conditioned network has no density: its velocity depends on the steps before. "
            "Train one with self_condition=0 and no `self_conditioned`."
        )
