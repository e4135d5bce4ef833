"""The laws of networks and of whole domains."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.domain import Domain
from fm_science.networks import NetworkFunction, as_network
from fm_science.paths import Path
from fm_science.priors import Prior
from fm_science.spaces import Space
from fm_science.state import Context, State, batch_size, leaves, take, tree_map
from fm_science.symmetries import Symmetry
from fm_science.testing.laws import Laws, narrow, widen

Predicted = Callable[[State, Context], State]  #: the predicted endpoint of a point


def check_network(
    network: Callable[..., Any], path: Path, prior: Prior, context: Context, symmetries: Sequence[Symmetry] = (),
    reflections: bool | None = None, tolerance: float = 1e-8, seed: int = 0, reads: Sequence[str] = (),
) -> dict[str, float]:  # fmt: skip
    """Check the laws of a network in double precision: it commutes with each symmetry, padding and other samples of the
    batch change nothing, and every parameter gets a gradient. Symmetries are tested on predicted endpoints, so that the
    meaning of the raw output does not matter. A copy of the network is used, its weights slightly perturbed, so that
    layers that start at zero hide nothing. A self-conditioned network is also given its own first endpoint.

    Args:
        network: ``(x, t, context) -> raw``, a module or a function.
        path: an unbound path that says what the output means.
        prior: the distribution of the points at which the network is evaluated.
        context: a test batch with its conditions, best with samples of different sizes.
        symmetries: transformations of state and context that the network commutes with.
        reflections: True when it also commutes with mirror images, False when it must distinguish them, None: any.
        tolerance: of equalities, relative to the size of the outputs but at least one.
        seed: of torch's generator; the generator is left as it was.
        reads: conditions of the context that the output must depend on: it changes when samples exchange them.

    Returns:
        The largest error of each law.

    Raises:
        AssertionError: naming each broken law with its error and tolerance.
        ValueError: for conditions in ``reads`` that the context does not carry, or that are alike in all samples.
    """
    laws = Laws(type(network).__name__)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network, context = as_network(_shaken(network)), _double(context)
        p = path.bind(context, prior)
        x = p.space.project(tree_map(lambda v: v.double(), prior.sample(path.space, context)))
        t = 0.1 + 0.8 * torch.rand(context.size, dtype=torch.float64)
        if network.two_times:
            context = _destined(laws, network, x, t, context, tolerance)

        remembers = network.self_conditioned

        def predict(y: State, given: Context) -> State:
            end = path.bind(given, prior).endpoint
            first = end(network(y, t, given), y, t)
            return end(network(y, t, replace(given, previous=first)), y, t) if remembers else first

        raw = network(x, t, context)
        laws.finite("output is finite", raw)
        laws.equal("the same input gives the same output", network(x, t, context), raw, 0.0)
        for symmetry in symmetries:
            _commutes(laws, predict, x, path.space, context, symmetry, seed, tolerance)
        if reflections is not None:
            _mirror(laws, lambda y: predict(y, context), x, p.space, reflections, tolerance)
        _independent(laws, network, raw, x, t, context, tolerance)
        _padding(laws, network, path.space, raw, x, t, context, tolerance)
        for name in reads:
            _reads(laws, network, raw, x, t, context, name)
        if isinstance(network, nn.Module):
            _gradients(laws, network, x, t, replace(context, previous=predict(x, context)) if remembers else context)
    return laws.enforce()


def _shaken(network: Any) -> Any:
    if not isinstance(network, nn.Module):
        return network
    network = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return network


def _destined(laws: Laws, network: NetworkFunction, x: State, t: Tensor, context: Context, tolerance: float) -> Context:
    """A flow map with end time t predicts the velocity, and the same without an end time. Returns the context with a
    later end time, with which all other laws are tested."""
    here = network(x, t, replace(context, t_end=t))
    laws.equal("without an end time it predicts the velocity", network(x, t, context), here, tolerance)
    return replace(context, t_end=t + 0.5 * (1 - t))


def _double(context: Context) -> Context:
    cond = {k: v.double() if v.is_floating_point() else v for k, v in context.cond.items()}
    known = None if context.known is None else tree_map(lambda v: v.double(), context.known)
    return replace(context, cond=cond, known=known)


def _commutes(
    laws: Laws, predict: Predicted, x: State, space: Space, context: Context, symmetry: Symmetry, seed: int, tol: float
) -> None:  # fmt: skip
    def moved(y: State) -> tuple[State, Context]:
        torch.manual_seed(seed + 1)  # the same element of the group each time
        return symmetry.apply(space, y, context)

    expected, _ = moved(predict(x, context))
    laws.equal(f"commutes with {symmetry!r}", predict(*moved(x)), expected, tol)


def _mirror(
    laws: Laws, predict: Callable[[State], State], x: State, space: Space, reflections: bool, tol: float
) -> None:  # fmt: skip
    n = batch_size(x)
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)).expand(n, 3, 3)
    there, back = predict(space.rotate(x, mirror)), space.rotate(predict(x), mirror)
    if reflections:
        laws.equal("commutes with mirror images", there, back, tol)
        return
    gap = max(float((a - b).detach().abs().max()) for a, b in zip(leaves(there), leaves(back), strict=True))
    laws.holds("tells mirror images apart", gap > 1e-6, f"outputs of mirror images differ by {gap:.3g} only")


def _independent(laws: Laws, network: Any, raw: State, x: State, t: Tensor, context: Context, tol: float) -> None:
    """A sample does not depend on the others of its batch."""
    index = torch.arange(context.size - 1, -1, -2)
    alone = network(take(x, index), t[index], context.take(index))
    laws.equal("other samples change nothing", alone, take(raw, index), tol)


def _reads(laws: Laws, network: NetworkFunction, raw: State, x: State, t: Tensor, context: Context, name: str) -> None:
    """The output is another one when samples exchange a condition."""
    value = context.cond.get(name)
    if value is None or torch.equal(value.roll(1, 0), value):
        raise ValueError(f"reads={name!r}: the context needs this condition, and not the same in all samples.")
    changed = network(x, t, replace(context, cond={**context.cond, name: value.roll(1, 0)}))
    differs = any(not torch.equal(a, b) for a, b in zip(leaves(changed), leaves(raw), strict=True))
    laws.holds(f"reads the condition {name!r}", differs, "samples that exchange it get the same output")


def _padding(
    laws: Laws, network: Any, space: Space, raw: State, x: State, t: Tensor, context: Context, tol: float
) -> None:  # fmt: skip
    """More padding changes nothing on real sites."""
    extra, n = 2, context.mask.shape[1]
    if n == 1:
        return  # one site per sample: nothing is padded
    wide = replace(
        context,
        mask=torch.nn.functional.pad(context.mask, (0, extra)),
        cond={k: _widened(v, n, extra) for k, v in context.cond.items()},
        free=None, known=None,
    )  # fmt: skip
    s = space.bind(wide)
    output = network(s.project(widen(s, x, extra)), t, wide)
    narrow_space = space.bind(replace(context, free=None, known=None))
    given, expected = (_real(narrow_space, y) for y in (narrow(s, output, extra), raw))
    laws.equal("padding changes nothing", given, expected, tol)


def _widened(v: Tensor, n: int, extra: int) -> Tensor:
    """A condition with room for more sites; one on pairs ``(B, N, N, ...)`` on both axes."""
    if v.ndim < 2 or v.shape[1] != n:
        return v
    wide = torch.cat([v, v.new_zeros(len(v), extra, *v.shape[2:])], 1)
    pairs = v.ndim > 2 and v.shape[2] == n
    return torch.cat([wide, wide.new_zeros(*wide.shape[:2], extra, *wide.shape[3:])], 2) if pairs else wide


def _real(s: Any, y: Any) -> Any:
    if s.parts:
        return {k: _real(part, y[k]) for k, part in s.parts.items()}
    return y[s.mask]


def _gradients(laws: Laws, network: nn.Module, x: State, t: Tensor, context: Context) -> None:
    network.zero_grad()
    raw = network(x, t, context)
    torch.stack([(y * torch.randn_like(y)).sum() for y in leaves(raw)]).sum().backward()
    silent = [n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    laws.holds("every parameter gets a gradient", not silent, f"none reaches {', '.join(silent)}")
    laws.finite("gradients are finite", [p.grad for p in network.parameters()])


def check_domain(domain: Domain, n: int = 2, steps: int = 2, seed: int = 0) -> dict[str, float]:
    """Check a domain: its parts fit together from a batch of data to a picture of samples.

    Args:
        domain: built with small options, so that the check is fast.
        n: samples to draw.
        steps: of the solver.
        seed: of torch's generator; the generator is left as it was.

    Returns:
        The largest error of each law.

    Raises:
        AssertionError: naming each law that fails.
    """
    laws = Laws(f"domain {domain.name}")
    with torch.random.fork_rng([]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        x1, context = _batch(laws, domain)
        _training(laws, domain, x1, context)
        samples = _sampling(laws, domain, n, steps, seed)
        _files(laws, domain, samples, FilePath(folder))
    errors = laws.enforce()
    return errors | check_network(
        domain.network, domain.path, domain.prior, context, domain.network_symmetries, seed=seed
    )  # fmt: skip


def _batch(laws: Laws, domain: Domain) -> tuple[State, Context]:
    from fm_science.data import collate

    for name, data in (("train", domain.data.train), ("validation", domain.data.validation)):
        laws.holds(f"{name} data have sizes", len(data.sizes) == len(data) > 0, f"{len(data.sizes)} of {len(data)}")
    count = min(4, len(domain.data.train))
    order = domain.data.train.sizes.argsort()[torch.linspace(0, len(domain.data.train) - 1, count).long()]
    x1, context = collate(domain.path.space, [domain.data.train[int(i)] for i in order])
    s: Any = domain.path.space.bind(context)
    laws.equal("data are points of the space", s.project(x1), x1, 1e-4)
    sizes = domain.data.train.sizes[order]
    laws.holds("sizes count the sites", torch.equal(context.mask.sum(1), sizes), f"{sizes.tolist()} are declared")
    return x1, context


def _training(laws: Laws, domain: Domain, x1: State, context: Context) -> None:
    flow = domain.flow()
    losses = domain.objective(flow, x1, context)
    laws.holds("the objective gives named losses", bool(losses), "it gives none")
    for name, loss in losses.items():
        laws.holds("losses are one number per sample", loss.shape == (context.size,), f"{name} has {tuple(loss.shape)}")
    laws.finite("losses are finite", dict(losses))
    flow.zero_grad()
    sum(loss.mean() for loss in losses.values()).backward()
    laws.finite("gradients of the losses are finite", [p.grad for p in flow.parameters()])
    flow.zero_grad()


def _sampling(laws: Laws, domain: Domain, n: int, steps: int, seed: int) -> list:
    flow, context = domain.flow(), domain.request(n)
    laws.holds("request gives as many samples as requested", context.size == n, f"{context.size}, not {n}")
    x = flow.sample(context, steps=steps, seed=seed)
    laws.finite("samples are finite", x)
    laws.equal("the same seed gives the same samples", flow.sample(context, steps=steps, seed=seed), x, 0.0)
    samples = domain.decode(x, context)
    laws.holds("decode gives one object per sample", len(samples) == n, f"{len(samples)}, not {n}")
    laws.enforce()  # metrics and files would only fail again for what fails here
    rows = domain.references(samples)
    reference = next(iter(rows.values()), [])
    laws.holds("references start with a held-out set", len(reference) > 0, "there is none")
    for name, metric in domain.metrics.items():
        values = metric(samples, reference)
        ok = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values.values())
        laws.holds(f"metric {name} gives named numbers", ok, f"it gives {values!r}")
    return samples


def _files(laws: Laws, domain: Domain, samples: list, folder: FilePath) -> None:
    files = domain.write(samples, folder, first=3)
    laws.holds("write makes files", bool(files) and all(f.is_file() for f in files), f"it returns {files!r}")
    found = len(domain.read(files))
    if found != len(samples):  # several formats of each sample: a folder is read once
        found = len(domain.read([folder]))
    laws.holds("read finds what write wrote", found == len(samples), f"{found} of {len(samples)}")
    pictures = domain.report({"samples": samples, **domain.references(samples)}, folder / "report")
    laws.holds("report gives files", all(FilePath(f).is_file() for f in pictures), f"it returns {pictures!r}")
