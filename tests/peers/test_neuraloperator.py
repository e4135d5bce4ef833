"""Fourier layers beside neuraloperator's, with the same weights: the same function of functions at every resolution."""

from __future__ import annotations

import pytest
import torch

from fm_science.networks.fno import FourierLayer, SpectralConvolution

peer = pytest.importorskip(
    "neuralop.layers.spectral_convolution", reason="needs pip install 'fm-science[peers]'", exc_type=ImportError
)
pytestmark = pytest.mark.peers

WIDTH, BATCH = 5, 3
CASES = [((4,), (16,)), ((4,), (64,)), ((3, 4), (16, 20)), ((3, 4), (32, 17)), ((2, 1, 3), (8, 6, 12))]


def theirs(modes: tuple[int, ...], ours: SpectralConvolution) -> torch.nn.Module:
    """Their convolution with our weights: first channels in and out, then the modes, all but the last from -m to m."""
    kept = (*(2 * m + 1 for m in modes[:-1]), 2 * modes[-1])
    layer = peer.SpectralConv(WIDTH, WIDTH, kept, bias=False)
    weight = torch.view_as_complex(ours.weight.detach())  # (last axis, ..., first axis, in, out)
    d = len(modes)
    del layer.weight  # a factorised tensor
    layer.weight = weight.permute(d, d + 1, *reversed(range(d)))
    layer._contract = peer._contract_dense
    return layer


@pytest.mark.parametrize(("modes", "grid"), CASES, ids=str)
def test_spectral_convolutions_agree(modes, grid):
    ours = SpectralConvolution(WIDTH, modes)
    h = torch.randn(BATCH, *grid, WIDTH)
    found = theirs(modes, ours)(h.movedim(-1, 1)).movedim(1, -1)
    expected = ours(h).detach()
    torch.testing.assert_close(found.to(expected), expected, rtol=1e-5, atol=1e-5)  # theirs are in single precision


def test_plain_layers_agree():
    """gelu(K h + W h), with a pointwise map between."""
    skip = pytest.importorskip("neuralop.layers.skip_connections")
    ours = FourierLayer(WIDTH, (4,), 0)
    linear = skip.skip_connection(WIDTH, WIDTH, skip_type="linear", n_dim=1, bias=True)
    conv = next(m for m in linear.modules() if isinstance(m, torch.nn.Conv1d))
    conv.weight.data, conv.bias.data = ours.pointwise.weight.data[..., None], ours.pointwise.bias.data
    h = torch.randn(BATCH, 32, WIDTH)
    x = h.movedim(-1, 1)
    found = torch.nn.functional.gelu(theirs((4,), ours.spectral)(x) + linear(x)).movedim(1, -1)
    torch.testing.assert_close(found.to(h), ours(h, torch.zeros(BATCH)).detach(), rtol=1e-5, atol=1e-5)
