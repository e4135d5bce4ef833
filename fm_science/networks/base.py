"""What the engine asks of a network: one call, from state, time and context to raw output.

A :class:`Network` is a module that declares what it reads beside the point and the time. Any other module or function
of the same call serves too: :func:`as_network` adapts it once, where it enters a flow or is wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor, nn

from fm_science.declarations import derived
from fm_science.state import Context, State

#: Anything callable as ``network(x, t, context) -> raw``.
NetworkFunction: TypeAlias = Callable[[State, Tensor, Context], State]


class Network(nn.Module):
    """A module with the call ``network(x, t, context) -> raw``.

    ``x`` is a state, ``t`` is ``(B,)``, and ``raw`` is a state whose meaning the path's prediction fixes.

    Attributes:
        self_conditioned: it reads ``context.previous``, the endpoint predicted one step earlier.
        two_times: it is a flow map: it reads ``context.t_end`` ``(B,)``, the time to land at, and gives the mean
            velocity v of the jump exp(x, (t_end - t) v). Where ``t_end`` is ``None`` it is the same as ``t``, and the
            output is the velocity, so that all that walks a velocity field walks its own.
    """

    self_conditioned: bool = False
    two_times: bool = False

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        """The raw output at ``x`` and time ``t``."""
        raise NotImplementedError(f"{type(self).__name__} needs a method forward(x, t, context).")


class ClosedForm(Network):
    """A function in the place of a network: it has no weights and needs no training.

    Args:
        function: ``(x, t, context) -> raw``.
    """

    def __init__(self, function: NetworkFunction) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        return self.function(x, t, context)


class WrappedNetwork(Network):
    """A network around another one, which reads what that one reads.

    Args:
        network: the inner network, or a function in its place.
    """

    def __init__(self, network: NetworkFunction) -> None:
        super().__init__()
        self.network = as_network(network)

    @derived
    def self_conditioned(self) -> bool:
        """Whether the inner network reads the endpoint predicted one step earlier."""
        return self.network.self_conditioned

    @derived
    def two_times(self) -> bool:
        """Whether the inner network is a flow map."""
        return self.network.two_times


def accept_older_weights(module: nn.Module, **names: str) -> None:
    """Let a module load weights of earlier versions, in which some of its parts had other names.

    Args:
        module: the module whose parts were renamed.
        names: the name of an earlier version by the name of today, such as ``condition="told"``.
    """
    vars(module)["earlier_names"] = names
    module.register_load_state_dict_pre_hook(_rename)


def with_current_names(weights: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Weights by the names of today, of those an earlier version may have saved of ``module``."""
    found = dict(weights)
    for name, part in module.named_modules():
        _rename(part, found, f"{name}." if name else "")
    return found


def _rename(module: nn.Module, weights: dict[str, Tensor], prefix: str, *_: object) -> None:
    for today, earlier in vars(module).get("earlier_names", {}).items():
        start = f"{prefix}{earlier}."
        for key in [key for key in weights if key.startswith(start)]:
            weights[f"{prefix}{today}.{key.removeprefix(start)}"] = weights.pop(key)


def as_network(network: NetworkFunction) -> Network:
    """A network as the engine sees it: modules stay what they are, with the attributes of :class:`Network` added where
    they lack them; functions become a :class:`ClosedForm`."""
    if isinstance(network, Network):
        return network
    found = network if isinstance(network, nn.Module) else ClosedForm(network)
    for name in ("self_conditioned", "two_times"):
        declared = bool(getattr(network, name, False))
        if found is not network or not hasattr(found, name):
            setattr(found, name, declared)
    return found  # type: ignore[return-value]  # a module with the attributes of a network
