"""The initialisation of layers of the protein network: small, so that the untrained network nearly returns its
input."""

from __future__ import annotations

import torch
from torch import nn


def scaled(layer: nn.Linear, gain: float = 0.1) -> nn.Linear:
    """Scale the weights of a layer that ends a residual branch by ``gain`` and set its bias to zero."""
    with torch.no_grad():
        layer.weight.mul_(gain)
        layer.bias.zero_()
    return layer


def small_embedding(rows: int, width: int) -> nn.Embedding:
    """An embedding of labels that is initially small compared with the geometry (standard deviation 0.1)."""
    layer = nn.Embedding(rows, width)
    nn.init.normal_(layer.weight, std=0.1)
    return layer
