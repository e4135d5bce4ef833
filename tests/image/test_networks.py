"""Networks of images: they begin as they should, know their class or that they do not, and have a trace."""

from __future__ import annotations

import pytest
import torch

from fm_science.likelihood import ExactTrace, divergence
from fm_science.spaces import Euclidean
from fm_science.state import Context
from fm_science_domains.image.embedding import Steerable
from fm_science_domains.image.transformer import Transformer
from fm_science_domains.image.unet import UNet

NETWORKS = {
    "unet": lambda shape=(1, 4, 4): UNet(shape, 8, (1, 2), 1, (2,), 8, 0.0, 3),
    "transformer": lambda shape=(1, 4, 4): Transformer(shape, 16, 2, 2, 2, 3),
}


def shaken(network):
    """Weights that hide nothing behind layers that start at zero."""
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return network.double().eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_it_begins_at_zero(name: str) -> None:
    x = torch.randn(3, 1, 2, 8, 12)
    assert not NETWORKS[name]((2, 8, 12))(x, torch.rand(3), Context.full(3)).any()


@pytest.mark.parametrize("name", NETWORKS)
def test_unknown_classes_and_guidance(name: str) -> None:
    network = Steerable(shaken(NETWORKS[name]()))
    x, t = torch.randn(4, 1, 1, 4, 4).double(), torch.rand(4).double()
    labels = torch.tensor([0, 1, 2, 1])
    on, off = network(x, t, Context.full(4, label=labels)), network(x, t, Context.full(4))
    assert torch.equal(off, network(x, t, Context.full(4, label=torch.full((4,), -1))))
    assert (on - off).abs().amax((1, 2, 3, 4)).min() > 1e-4
    scale = torch.tensor([0.0, 1.0, 2.0, -1.0])
    guided = network(x, t, Context.full(4, label=labels, guidance=scale))
    expected = off + scale.double()[:, None, None, None, None] * (on - off)
    torch.testing.assert_close(guided, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_trace_is_that_of_the_jacobian(name: str) -> None:
    network, context = shaken(NETWORKS[name]()), Context.full(2, label=torch.tensor([0, 2]))
    x, t = torch.randn(2, 1, 1, 4, 4).double(), torch.full((2,), 0.3).double()
    space = Euclidean((1, 4, 4)).bind(context)
    _, trace = divergence(space, lambda y: network(y, t, context), x, ExactTrace())
    jacobian = torch.autograd.functional.jacobian(lambda y: network(y, t, context), x).reshape(2, 16, 2, 16)
    exact = torch.stack([jacobian[k, :, k].trace() for k in range(2)])
    torch.testing.assert_close(trace, exact, rtol=1e-10, atol=1e-10)


def test_a_patch_stays_where_it_is() -> None:
    """Without attention and places every patch would be carried alone: the parts are put back in their order."""
    network = Transformer((2, 4, 6), 16, 1, 2, 2)
    x = torch.randn(1, 1, 2, 4, 6)
    patches = network.first(x[:, 0])
    with torch.no_grad():
        network.last.weight.zero_()
        network.last.bias.copy_(torch.arange(8.0))
    out = network(x, torch.rand(1), Context.full(1))[0, 0]
    assert patches.shape[2:] == (2, 3)
    tile = torch.arange(8.0).reshape(2, 2, 2)
    assert torch.equal(out, tile.repeat(1, 2, 3))
