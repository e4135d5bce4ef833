"""What every domain declares of its symmetries, and that its networks commute with those and break the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fm_science.data import collate
from fm_science.domain import Domain
from fm_science.symmetries import Symmetry
from fm_science.testing import check_network
from fm_science_domains.function import Function
from fm_science_domains.image import ImageDomain
from fm_science_domains.molecule import MoleculeDomain
from fm_science_domains.point_cloud import PointCloud
from fm_science_domains.protein import Protein

FUNCTIONS: dict[str, Any] = {"train": 24, "held_out": 8, "grid": 12, "periodic": True, "kernel": "rbf"}
SMALL = {
    "point_cloud": {"width": 16, "layers": 1, "heads": 2},
    "molecule": {"width": 16, "edge": 8, "vectors": 4, "layers": 1, "heads": 2, "radial": 6},
    "function": {"width": 8, "layers": 2, "heads": 2},
    "image": {"width": 16, "blocks": 1, "head": 8},
    "protein": {"width": 32, "pair": 16, "blocks": 1, "heads": 2, "channels": 8, "points": 3, "bins": 8},
}
DECLARED = [  # domain, options of the network, other options, the names that it respects, and those it is taught
    (PointCloud, {"kind": "egnn"}, {}, "Permutations Rotations", ""),
    (PointCloud, {"kind": "message_passing"}, {}, "Permutations Rotations", ""),
    (PointCloud, {"kind": "transformer"}, {}, "Permutations", "Rotations"),
    (MoleculeDomain, {"kind": "dense"}, {}, "Permutations Rotations", ""),
    (MoleculeDomain, {"kind": "transformer"}, {}, "Permutations", "Rotations"),
    (Function, {"places": False}, {"path": {"noise": "white"}}, "Shifts", ""),
    (Function, {"places": True}, {"path": {"noise": "white"}}, "", ""),
    (Function, {"kind": "operator"}, {"path": {"noise": "white"}}, "Permutations", ""),
    (ImageDomain, {"kind": "unet"}, {"data": {"flip": True}}, "", "Mirrors"),
    (ImageDomain, {"kind": "transformer"}, {"data": {"flip": True}}, "", "Mirrors"),
    (Protein, {}, {}, "Rotations", ""),
]


def built(kind: type[Domain], network: dict[str, Any], more: dict[str, Any], cache: Path) -> Domain:
    """A domain with a small network and few data."""
    data = {
        "point_cloud": {"source": "shapes", "points": 8, "train": 16, "held_out": 4},
        "molecule": {"limit": 40, "max_atoms": 8},
        "function": {**FUNCTIONS, "cache": str(cache)},
        "image": {}, "protein": {"limit": 8, "max_length": 60},
    }[kind.name]  # fmt: skip
    given = {"data": data, "network": {**SMALL[kind.name], **network}}
    return kind(**{**given, **{name: {**given.get(name, {}), **v} for name, v in more.items()}})


def names(symmetries: Any) -> str:
    return " ".join(type(s).__name__ for s in symmetries)


@pytest.mark.parametrize(
    ("kind", "network", "more", "respected", "taught"), DECLARED,
    ids=[f"{row[0].name} {' '.join(map(str, row[1].values()))}" for row in DECLARED],
)  # fmt: skip
def test_networks_commute_with_what_is_declared_and_with_nothing_that_is_taught(
    kind: type[Domain], network: dict, more: dict, respected: str, taught: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    domain = built(kind, network, more, tmp_path)
    assert (names(domain.network_symmetries), names(domain.augmentations)) == (respected, taught)
    state, context = collate(domain.path.space, [domain.data.train[i] for i in range(3)])
    del state

    def check(symmetries: tuple[Symmetry, ...]) -> None:
        check_network(domain.network, domain.path, domain.prior, context, symmetries)

    check(tuple(domain.network_symmetries))
    for symmetry in domain.augmentations:
        with pytest.raises(AssertionError, match=f"commutes with {type(symmetry).__name__}"):
            check((symmetry,))
