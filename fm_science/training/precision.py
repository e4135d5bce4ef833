"""Mixed precision: the network computes in half precision, geometry never does.

Half precision has three digits. This is enough for a layer, but not for a rotation matrix: it would leave its space. So
a step runs in single precision, and only the network's own calls are mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from fm_science.networks.base import ClosedForm, Network
from fm_science.state import tree_map


@contextmanager
def network_only(network: Network, region: Callable[[], AbstractContextManager[Any]], device: str) -> Iterator[None]:
    """Autocast is off inside, except for the calls of ``network``, each of which runs in ``region()`` and gives its raw
    output in single precision at least.

    The network remains the same object, with its attributes and the names of its weights. Anything except its call,
    such as a potential's value, is computed in the precision of the points.

    Args:
        network: a module; closed forms, which have no weights, are unchanged.
        region: opens the region of mixed precision, such as ``torch.autocast``.
        device: the type of device that autocast is switched off for.
    """
    with torch.autocast(device, enabled=False):
        if isinstance(network, ClosedForm):
            yield
            return
        own, forward = vars(network).get("forward"), network.forward  # a compiled network has its own

        def mixed(*args: Any, **options: Any) -> Any:
            with region():
                raw = forward(*args, **options)
            return tree_map(_single, raw)

        network.forward = mixed  # type: ignore[method-assign]
        try:
            yield
        finally:
            del network.forward
            if own is not None:
                network.forward = own  # type: ignore[method-assign]


def _single(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
