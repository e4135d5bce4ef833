"""The contract: what is checked of states, contexts and network outputs before anything is computed.

Shapes broadcast, integers divide and points off a sphere still have coordinates, so a wrong batch seldom fails: it
trains on something else. Each entry (the objectives, and ``sample``, ``transport``, ``log_prob`` of a flow) calls this
first. Names, shapes, dtypes and devices are checked in every call, without synchronising with an accelerator. Values
are read when an integration begins, and in the first training step of a flow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from fm_science.errors import ContractError
from fm_science.priors import cast
from fm_science.state import Context, State, leaves

OFF = 1e-3  #: how far a point may be from its space, relative to its size but at least one

_TRAINED: WeakSet[Any] = WeakSet()  #: flows whose first training batch has been read


def check_context(context: Context) -> None:
    """Raises TypeError or ContractError unless the mask is ``(B, N)`` bool."""
    if not isinstance(context, Context):
        raise TypeError(f"the context is a {type(context).__name__}; expected fm_science.Context(mask, cond).")
    mask = context.mask
    if not (torch.is_tensor(mask) and mask.dtype == torch.bool and mask.ndim == 2):
        given = f"{mask.dtype} of shape {tuple(mask.shape)}" if torch.is_tensor(mask) else type(mask).__name__
        raise ContractError(f"the mask of the context is {given}; expected a bool tensor of shape (batch, sites).")


def admit(flow: Any, x: State, context: Context, what: str = "data") -> State:
    """A batch of states at which an integration of ``flow`` begins, in the dtype of its weights. Names, shapes and
    values are checked.

    Args:
        flow: path, prior and network.
        x: the batch.
        context: its context.
        what: the name of the batch in messages.

    Raises:
        TypeError: for something that is not a state.
        ContractError: for parts, shapes, dtypes or devices that do not fit the space, and for points that are not
            finite, off the space, or not corners of the simplex.
    """
    check_context(context)
    space = flow.path.space.bind(context)
    check_state(space, x, context, what)
    check_values(space, x, what)
    return _cast(flow, space, x)


def admit_training(flow: Any, x1: State, context: Context, x0: State | None = None) -> tuple[State, State | None]:
    """As :meth:`admit` for data and for noise that is given; the values of the first batch of a flow are read."""
    check_context(context)
    space = flow.path.space.bind(context)
    first = flow not in _TRAINED
    admitted = []
    for what, x in (("data", x1), ("noise", x0)):
        if x is not None:
            check_state(space, x, context, what)
            if first:
                check_values(space, x, what)
        admitted.append(x if x is None else _cast(flow, space, x))
    _TRAINED.add(flow)
    return admitted[0], admitted[1]


def _cast(flow: Any, space: Any, x: State) -> State:
    """A state in the dtype of the weights, where there are weights. Times have the dtype of the state, so that it is
    never less than single precision: in half precision the latest times are 1."""
    like = flow.weight_dtype or torch.promote_types(leaves(x)[0].dtype, torch.float32)
    if all(leaf.dtype == like for leaf in leaves(x)):
        return x
    return cast(space, x, torch.empty((), dtype=like, device=leaves(x)[0].device))


def check_state(space: Any, x: State, context: Context, what: str = "data") -> None:
    """Raises TypeError or ContractError unless ``x`` has the parts, shapes, dtype and device of a point of a bound
    space."""
    for name, part, value in _parts(space, x, what, ""):
        _check_tensor(part, value, context, f"{what}{name}")


def _parts(space: Any, x: Any, what: str, prefix: str) -> list[tuple[str, Any, Any]]:
    """The leaves of a bound space with their values, by name. Raises where names do not match."""
    parts = space.parts
    if not parts:
        if isinstance(x, Mapping):
            raise TypeError(
                f"{what}{prefix}: a dict of {sorted(x)} was given; expected one tensor, a point of {space!r}."
            )
        return [(prefix, space, x)]
    if not isinstance(x, Mapping):
        raise TypeError(f"{what}{prefix}: a {type(x).__name__} was given; expected a dict with {sorted(parts)}.")
    if set(x) != set(parts):
        raise ContractError(f"{what}{prefix}: the parts {sorted(x)} were given; expected {sorted(parts)}.")
    return [found for k, part in parts.items() for found in _parts(part, x[k], what, f"{prefix}[{k!r}]")]


def _check_tensor(space: Any, x: Any, context: Context, what: str) -> None:
    if not torch.is_tensor(x):
        raise TypeError(f"{what}: a {type(x).__name__} was given; expected a tensor of shape {space.shape}.")
    leaf, wanted = space.leaf, tuple(space.shape)
    hint = (
        "" if leaf.smooth else f" Classes are one-hot: torch.nn.functional.one_hot(numbers, {leaf.event[-1]}).float()."
    )
    if not x.is_floating_point():
        raise ContractError(f"{what}: {x.dtype} was given; expected floating point numbers of shape {wanted}.{hint}")
    if tuple(x.shape) != wanted:
        raise ContractError(
            f"{what}: shape {tuple(x.shape)} was given; expected {wanted}, since the mask has "
            f"{tuple(context.mask.shape)} (batch, sites) and a point of {leaf!r} has {tuple(leaf.event)}.{hint}"
        )
    if x.device != context.mask.device:
        raise ContractError(f"{what}: on {x.device}, and the mask on {context.mask.device}; expected one device.")


def check_values(space: Any, x: State, what: str = "data") -> None:
    """Raises ContractError for points on real sites that are not finite, off a bound space, or not corners of the
    simplex. Reads the values, which synchronises with an accelerator."""
    for name, part, value in _parts(space, x, what, ""):
        points = value.detach()[part.mask]
        if not bool(points.isfinite().all()):
            count = int((~points.isfinite()).sum())
            raise ContractError(f"{what}{name}: {count} numbers are NaN or infinite; expected finite points.")
        gap, allowed = part.leaf.off(points), max(OFF, 4 * torch.finfo(points.dtype).eps)
        if bool((gap > allowed).any()):
            raise ContractError(
                f"{what}{name}: {int((gap > allowed).sum())} of {len(points)} points lie off {part.leaf!r}, by up to "
                f"{float(gap.max()):.3g}; expected {part.leaf.point}."
            )


def check_output(path: Any, raw: Any, name: str = "") -> None:
    """Raises TypeError or ContractError unless a network's raw output has the shape that the predictions of a bound
    path require. Checks shapes only: no values are read."""
    what = f"the network's output{name}"
    parts = path.parts
    wanted = parts or path.outputs
    if isinstance(wanted, Mapping):
        if not isinstance(raw, Mapping) or set(raw) < set(wanted):
            given = sorted(raw) if isinstance(raw, Mapping) else f"a {type(raw).__name__}"
            raise ContractError(f"{what}: {given} was given; expected a dict with {sorted(wanted)}.")
        for k, part in wanted.items():
            if not parts:
                _check_shape(raw[k], part, f"{what}[{k!r}]", path)
            else:
                check_output(part, raw[k], f"{name}[{k!r}]")
    elif wanted is not None:
        _check_shape(raw, wanted, what, path)


def _check_shape(raw: Any, wanted: tuple[int, ...], what: str, path: Any) -> None:
    if not torch.is_tensor(raw):
        raise TypeError(f"{what}: a {type(raw).__name__} was given; expected a tensor of shape {wanted}.")
    if tuple(raw.shape) != wanted:
        raise ContractError(
            f"{what}: shape {tuple(raw.shape)} was given; expected {wanted}, since {path.predicts!r} on "
            f"{path.space!r} is (batch, sites, ...)."
        )


class Logits:
    """Checks the logits during an integration: a class would be sampled even from NaN or infinite ones. On the CPU a
    bad one raises at once; elsewhere the first such time is kept, and read at the end of the integration."""

    def __init__(self, path: Any) -> None:
        self.parts = dict(_classes(path, ""))
        self.first: dict[str, Tensor] = {}

    def __call__(self, raw: Any, t: Tensor) -> None:
        for name, (path, keys) in self.parts.items() if len(t) else ():
            logits = raw
            for key in keys:
                logits = logits[key]
            unknown = path.predicts.logits(path, logits.detach()).isnan().any(-1) & path.space.counted_mask
            bad = unknown.reshape(len(t), -1).any(1)  # classes of a whole graph have no axis of sites
            when = torch.where(bad, t.double(), torch.inf).amin()
            self.first[name] = torch.minimum(self.first.get(name, when), when)
        if t.device.type == "cpu":
            self.finish()

    def finish(self) -> None:
        """Raises ContractError if there was a bad one."""
        for name, when in self.first.items():
            if bool(when.isfinite()):
                raise ContractError(
                    f"the network's logits{name} are NaN or infinite at t = {float(when):.4g}; expected numbers, with "
                    "-inf at most for classes that cannot be. Look for a division by zero or for too large weights."
                )


def rewards(function: Callable[[Any], Tensor], x1: State) -> Tensor:
    """What a reward or log-likelihood says of a batch, ``(B,)``, in nats. Raises ValueError unless it is one number a
    sample, none of them NaN or plus infinity."""
    found, count = function(x1), len(leaves(x1)[0])
    if not (torch.is_tensor(found) and found.shape == (count,)):
        given = f"a tensor of shape {tuple(found.shape)}" if torch.is_tensor(found) else f"a {type(found).__name__}"
        raise ValueError(f"the reward gave {given}; expected one number a sample, a tensor of shape ({count},).")
    if bool((found.isnan() | (found == torch.inf)).any()):
        raise ValueError("the reward gave NaN or plus infinity; expected numbers, or -inf for what cannot be.")
    return found


def _classes(path: Any, name: str, keys: tuple[str, ...] = ()) -> list[tuple[str, tuple[Any, tuple[str, ...]]]]:
    """The leaf paths on classes by name, each with its keys."""
    if path.parts:
        return [found for k, p in path.parts.items() for found in _classes(p, f"{name}[{k!r}]", (*keys, k))]
    predicts = getattr(path, "predicts", None)
    return [] if path.space.smooth or predicts is None else [(name, (path, keys))]
