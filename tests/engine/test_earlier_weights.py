"""Weights of earlier versions load, where parts of a network have other names today."""

from __future__ import annotations

import copy

import torch
from torch import nn

from fm_science import Context
from fm_science.networks import accept_older_weights
from fm_science.networks.base import with_current_names
from fm_science.networks.transformer import SetTransformer


class Renamed(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.add_module(name, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
        self.other = nn.Linear(2, 2)
        if name == "condition":
            accept_older_weights(self, condition="told")


def test_renamed_parts_take_the_weights_of_their_earlier_names():
    old, new = (nn.ModuleDict({"deep": Renamed(name)}) for name in ("told", "condition"))
    for module in (new, copy.deepcopy(new)):
        module.load_state_dict(old.state_dict())
        for name, weight in with_current_names(old.state_dict(), module).items():
            assert torch.equal(module.state_dict()[name], weight)
        module.load_state_dict(module.state_dict())
    assert set(with_current_names(old.state_dict(), new)) == set(new.state_dict())
    assert set(with_current_names(new.state_dict(), new)) == set(new.state_dict())


def test_a_network_computes_the_same_from_weights_of_an_earlier_version():
    torch.manual_seed(0)
    trained, fresh = (SetTransformer(dim=2, width=16, layers=2, heads=2) for _ in range(2))
    earlier = {name.replace(".condition.", ".told."): weight for name, weight in trained.state_dict().items()}
    assert set(earlier) != set(trained.state_dict())
    fresh.load_state_dict(earlier)
    x, t, context = torch.randn(3, 5, 2), torch.rand(3), Context.full(3, 5)
    assert torch.equal(fresh(x, t, context), trained(x, t, context))
