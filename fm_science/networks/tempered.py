"""Temperature: how boldly a network that predicts classes bets on the likeliest ones."""

from __future__ import annotations

from torch import Tensor

from fm_science.networks.base import NetworkFunction, WrappedNetwork
from fm_science.state import Context, State


class TemperatureScaled(WrappedNetwork):
    """Logits divided by a temperature: below 1 a network prefers its likeliest classes, above 1 it explores.

    Args:
        network: predicts logits for the named parts.
        temperature: of a state with one part.
        parts: temperatures by part, e.g. ``atoms=0.5``; other parts stay as they are.
    """

    def __init__(self, network: NetworkFunction, temperature: float | None = None, **parts: float) -> None:
        super().__init__(network)
        if (temperature is None) == (not parts):
            raise ValueError(
                "TemperatureScaled needs one temperature, or one a part by name: TemperatureScaled(network, atoms=0.5)."
            )
        for name, value in ({"temperature": temperature} if temperature is not None else parts).items():
            if not value > 0:
                raise ValueError(f"TemperatureScaled({name}={value}): a temperature is positive.")
        self.temperature, self.temperatures = temperature, parts

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        raw = self.network(x, t, context)
        if self.temperature is not None:
            return raw / self.temperature
        unknown = self.temperatures.keys() - raw.keys()
        if unknown:
            raise ValueError(f"TemperatureScaled has no part {sorted(unknown)}; the network predicts {sorted(raw)}.")
        return {**raw, **{k: raw[k] / v for k, v in self.temperatures.items()}}
