"""What Python and notebooks show of flows, domains, batches and samples: one line, or a little page, and no tensors."""

from __future__ import annotations

import re

import pytest
import torch

import fm_science
from fm_science.plugins import domains
from fm_science.state import Context

SMALL = {
    "protein": {"data": {"limit": 20}, "network": {"width": 16, "blocks": 1}},
    "molecule": {"network": {"width": 16, "layers": 1}},
    "point_cloud": {"data": {"train": 64, "held_out": 8, "effort": 0.01}, "network": {"width": 8, "layers": 1}},
    "function": {"data": {"train": 16, "held_out": 4}, "network": {"width": 4, "layers": 1, "modes": 4}},
    "image": {"network": {"width": 8, "blocks": 1}}, "table": {"data": {"train": 64, "test": 8}},
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_what_is_shown_is_short(name: str) -> None:
    domain = domains()[name].build(SMALL[name])
    flow, context = domain.flow(), domain.request(2)
    samples = domain.decode(flow.sample(context, steps=2, seed=0), context)
    for thing in (domain, flow, context, *samples[:1]):
        assert "tensor(" not in repr(thing)
        assert repr(thing).count("\n") == 0
        assert len(repr(thing)) < 700, repr(thing)
    assert f"domain={name}" in repr(flow)
    for thing in (domain, flow):
        assert thing._repr_html_().count("<tr>") >= 1


def test_names_from_files_are_text_in_notebooks() -> None:
    from fm_science_domains.point_cloud.files import Cloud

    shown = Cloud(torch.zeros(3, 2), '"><script>alert(1)</script>')._repr_html_()
    (page,) = re.findall(r'srcdoc="([^"]*)"', shown)
    assert "alert(1)" in page
    assert "<" not in page


def test_a_context_says_its_sizes() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert repr(Context(mask, {"label": torch.zeros(2)})) == "Context(2 samples of 2 to 3 sites, label (2,))"
    assert repr(fm_science.Context.full(3)) == "Context(3 samples of 1 sites)"
