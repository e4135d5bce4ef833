"""The laws of derivatives: training must use the gradient of the loss that it reports.

Densities and flow maps differentiate a derivative: a divergence is a trace of first derivatives, and its gradient with
respect to a weight needs the second ones of every map of the space. Forward and backward mode may be nested in any
order, and at the points where formulas divide zero by zero (no motion, equal eigenvalues) a wrong rule gives a wrong
number rather than an infinite one. So each order is compared with central differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.flow import Flow
from fm_science.likelihood import Divergence, ExactTrace, Hutchinson, HutchPP
from fm_science.objectives import Lagrangian, MaximumLikelihood, MeanFlow, Semigroup
from fm_science.objectives.laws import FlowMapLoss, Map, derivative
from fm_science.paths import Geodesic, ProductPath
from fm_science.priors import Prior, ProductPrior, Wrapped
from fm_science.solvers import Midpoint
from fm_science.spaces import Space
from fm_science.state import Context, State, add, expand_like, leaves, scale, tree_map
from fm_science.testing.laws import Laws, origin, ragged, random_ambient, random_point

Scalar = Callable[[Tensor], Tensor]  #: two numbers to one


def check_derivatives(
    space: Space, prior: Prior | None = None, sites: Sequence[int] = (2, 1), cond: Mapping[str, Tensor] | None = None,
    tolerance: float = 1e-5, seed: int = 0, spread: float = 0.5,
) -> dict[str, float]:  # fmt: skip
    """Compare the derivatives of a smooth space with central differences in double precision: first and second ones of
    its maps in every order of forward and backward mode, also where points coincide, where nothing moves, at the origin
    and close to the cut locus; and the gradients of the log-density with each divergence, with respect to a weight and
    the data, and of each law of flow maps with respect to a weight.

    Args:
        space: an unbound smooth space with a logarithm.
        prior: a distribution of noise with a density; default a wrapped Gaussian on each part.
        sites: numbers of real sites of the samples of a test batch.
        cond: conditions that the space reads when it is bound.
        tolerance: of derivatives, relative to their size but at least one.
        seed: of torch's generator; the generator is left as it was.
        spread: standard deviation of the normal step from the origin that gives random points.

    Returns:
        The largest error of each law.

    Raises:
        AssertionError: naming each law that fails with its error and tolerance.
    """
    laws, context = Laws(space), ragged(sites, cond=cond)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        _maps(laws, space.bind(context), spread, tolerance)
        flow = Flow(_path(space), prior or _prior(space), Waves(space)).double()
        x = random_point(space.bind(context), torch.float64, spread)
        for rule in (ExactTrace(), ExactTrace(chunk=1), Hutchinson(), HutchPP(3 * _width(space, context))):
            _density(laws, flow, x, context, rule, tolerance)
        for law in (Lagrangian(), MeanFlow(), Semigroup()):
            _flow_map(laws, flow, x, context, law, tolerance)
    return laws.enforce()


def _prior(space: Any) -> Prior:
    parts = space.parts
    return ProductPrior(**{k: _prior(s) for k, s in parts.items()}) if parts else Wrapped(1.0)


def _path(space: Any) -> Any:
    parts = space.parts
    return ProductPath(**{k: _path(s) for k, s in parts.items()}) if parts else Geodesic(space)


def _width(space: Any, context: Context) -> int:
    """Ambient numbers of a tangent of one sample."""
    bound = space.bind(context)
    x = origin(bound, torch.float64)
    return sum(u[0].numel() for u in leaves(bound.log(x, x)))


class Waves(nn.Module):
    """A small smooth vector field on any space, which couples the sites of a sample and reads both times: the laws of
    derivatives are tested on it.

    Args:
        space: an unbound space.
    """

    two_times = True

    def __init__(self, space: Any) -> None:
        super().__init__()
        parts = space.parts
        self.inner = nn.ModuleDict({k: Waves(s) for k, s in parts.items()} if parts else {})
        if parts:
            return
        point, tangent = (torch.Size(event).numel() for event in (space.event, space.tangent_event))
        self.space = space
        self.inward = nn.Parameter(0.5 * torch.randn(5, point))
        self.outward = nn.Parameter(0.3 * torch.randn(tangent, 5))
        self.clock = nn.Parameter(torch.randn(2, 5))

    def forward(self, x: Any, t: Tensor, context: Context) -> Any:
        if len(self.inner):
            return {k: part(x[k], t, context) for k, part in self.inner.items()}
        until = t if context.t_end is None else context.t_end
        features = x.reshape(*x.shape[: x.ndim - len(self.space.event)], -1) @ self.inward.T
        features = features + expand_like(t, features) * self.clock[0] + expand_like(until, features) * self.clock[1]
        waves = features.sin()
        if waves.ndim > 2:
            mask = context.sites(self.space.on)[..., None]
            waves = waves + torch.where(mask, waves, 0.0).mean(1, keepdim=True)
        u = (waves @ self.outward.T).unflatten(-1, self.space.tangent_event)
        if self.space.linear:
            return u
        u = self.space.tangent(x, u)
        speed = (1 + self.space.dot(x, u, u)).sqrt()  # an unbounded field would diverge
        return u / expand_like(speed, u)


def _maps(laws: Laws, s: Any, spread: float, tol: float) -> None:
    """First and second derivatives of exp, log and transport, at points in general position and at special ones."""
    x, y = (random_point(s, torch.float64, spread) for _ in range(2))
    start = origin(s, torch.float64)
    places = {
        "": (x, y, s.log(x, y)),
        " where nothing moves": (x, x, scale(0.0, s.log(x, y))),
        " at the origin": (start, start, scale(0.0, s.log(x, y))),
        " along the whole identity": (start, s.exp(start, _ones(s)), _ones(s)),
    }
    far = _far(s, x)
    if far is not None:
        places[" close to the cut locus"] = (x, far, s.log(x, far))
    for where, (x, y, u) in places.items():
        along = _Motion(s, x, y, u)
        for name in ("exp", "log", "transport"):
            _orders(laws, f"{name}{where}", along.of(name), tol)


def _far(s: Any, x: State) -> State | None:
    """A point nearly as far from ``x`` as geodesics are shortest; ``None`` on spaces where they always are."""
    if s.parts or s.leaf.injectivity == float("inf"):
        return None
    u = s.gaussian(x)
    return s.exp(x, expand_like((s.leaf.injectivity - 0.05) / s.leaf.dot(x, u, u).clamp_min(1e-12).sqrt(), u) * u)


def _ones(s: Any) -> State:
    """A tangent at the origin with equal eigenvalues, if there can be one."""
    start = origin(s, torch.float64)
    return s.tangent(start, s.log(start, s.exp(start, scale(0.3, s.tangent(start, _diagonal(s, start))))))


def _diagonal(s: Any, start: State) -> State:
    if s.parts:
        return {k: _diagonal(part, start[k]) for k, part in s.parts.items()}
    event = s.leaf.tangent_event
    one = torch.eye(event[0], dtype=torch.float64) if len(set(event)) == 1 < len(event) else torch.ones(event).double()
    return one.expand(*s.mask.shape, *event)


class _Motion:
    """Two points and a tangent that move with two numbers, and a random sum of the output of a map."""

    def __init__(self, s: Any, x: State, y: State, u: State) -> None:
        self.s, self.x, self.y, self.u = s, x, y, u
        self.steps = [[s.gaussian(z) for z in (x, y, x)] for _ in range(2)]
        self.weights = {"exp": random_ambient(x), "log": random_ambient(u), "transport": random_ambient(u)}
        self.carried = s.gaussian(x)

    def of(self, name: str) -> Scalar:
        def fn(h: Tensor) -> Tensor:
            dx, dy, du = (add(scale(h[0], a), scale(h[1], b)) for a, b in zip(*self.steps, strict=True))
            x, y, u = self.s.exp(self.x, dx), self.s.exp(self.y, dy), add(self.u, du)
            v = self.s.tangent(x, self.carried)
            given = {"exp": (x, self.s.tangent(x, u)), "log": (x, y), "transport": (x, y, v)}
            out = getattr(self.s, name)(*given[name])
            pairs = zip(leaves(self.weights[name]), leaves(out), strict=True)
            return torch.stack([(w * v).sum() for w, v in pairs]).sum()

        return fn


def _orders(laws: Laws, law: str, fn: Scalar, tol: float) -> None:
    """The gradient against differences of values, and each order of second derivatives against those of gradients."""
    zero, axes, h = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64), 1e-5
    difference = torch.stack([(fn(h * e) - fn(-h * e)) / (2 * h) for e in axes])
    forward, backward = torch.func.jacfwd, torch.func.jacrev
    laws.equal(f"derivative of {law}, forward", forward(fn)(zero), difference, tol)
    laws.equal(f"derivative of {law}, backward", backward(fn)(zero), difference, tol)
    slope = backward(fn)
    second = torch.stack([(slope(h * e) - slope(-h * e)) / (2 * h) for e in axes], 1)
    orders = {
        "backward of forward": backward(forward(fn)), "forward of backward": forward(slope),
        "backward of backward": backward(slope), "forward of forward": forward(forward(fn)),
    }  # fmt: skip
    for order, hessian in orders.items():
        laws.equal(f"second derivative of {law}, {order}", hessian(zero), second, tol)


class _Shake:
    """The weights of a network, moved along one random direction."""

    def __init__(self, network: nn.Module) -> None:
        self.weights = list(network.parameters())
        self.all_geodesics = [torch.randn_like(w) for w in self.weights]

    def slope(self, grads: Sequence[Tensor | None]) -> Tensor:
        """The rate along the direction, from these gradients."""
        rates = [(g * way).sum() for g, way in zip(grads, self.all_geodesics, strict=True) if g is not None]
        return torch.stack(rates).sum()

    def difference(self, fn: Callable[[], State], h: float = 1e-5) -> State:
        """The same rate as a central difference."""
        ends = []
        for d in (h, -2 * h):
            self._move(d)
            ends.append(tree_map(torch.Tensor.detach, fn()))
        self._move(h)
        return scale(0.5 / h, add(ends[0], scale(-1.0, ends[1])))

    @torch.no_grad()
    def _move(self, d: float) -> None:
        for w, way in zip(self.weights, self.all_geodesics, strict=True):
            w.add_(way, alpha=d)


def _density(laws: Laws, flow: Flow, x: State, context: Context, rule: Divergence, tol: float) -> None:
    """The loss of maximum likelihood, with respect to the weights and the data."""
    objective, s = (
        MaximumLikelihood(energy=0.1, solver=Midpoint(), steps=1, divergence=rule),
        flow.path.space.bind(context),
    )
    step, h, law = s.gaussian(x), 1e-5, f"the density with {rule!r}"

    def fn(size: Tensor) -> Tensor:
        torch.manual_seed(1)  # the same probes each time
        return torch.stack([v.sum() for v in objective(flow, s.exp(x, scale(size, step)), context).values()]).sum()

    shake, size = _Shake(flow.network), torch.zeros((), dtype=torch.float64, requires_grad=True)
    by_data, *by_weights = torch.autograd.grad(fn(size), [size, *shake.weights], allow_unused=True)
    ahead, behind = (fn(torch.full_like(size, d)).detach() for d in (h, -h))
    laws.equal(f"gradient of {law} by the data", by_data, (ahead - behind) / (2 * h), tol)
    difference = shake.difference(lambda: fn(size))
    laws.equal(f"gradient of {law} by the weights", shake.slope(by_weights), difference, tol)


#: The target of each law of flow maps, as a tangent at the point ``y`` of its residual.
TAUGHT: dict[str, Callable[[Map, Tensor, Tensor, State], State]] = {
    "Lagrangian": lambda m, s, t, y: _end_velocity(m, s, t, y),
    "MeanFlow": lambda m, s, t, y: m.velocity(m.at(s), s, t),
    "Semigroup": lambda m, s, t, y: scale(1 / (t - s), m.space.log(y, m(m.at(s), s, t))),
}


def _end_velocity(m: Map, s: Tensor, t: Tensor, y: State) -> State:
    """How the end of a jump moves with its time, in normal coordinates around ``y``."""
    x = m.at(s)
    return derivative(lambda end: (m.space.log(y, m(x, s, end)), ()), t)[1]


def _flow_map(laws: Laws, flow: Flow, x: State, context: Context, law: FlowMapLoss, tol: float) -> None:
    """The squared residual of a law of flow maps with respect to the weights, with its targets fixed."""
    path, network = flow.path.bind(context, flow.prior), flow.network
    x0 = path.space.project(tree_map(Tensor.double, flow.prior.sample(path.space, context)))
    s = torch.linspace(0.1, 0.3, context.size, dtype=torch.float64)
    t = s + 0.5
    seen = Map.of(network, path, context, x0, x, s)
    point, residual = law(seen, s, t)
    shake = _Shake(network)
    square = path.space.inner(point, residual, residual).sum()
    given = shake.slope(torch.autograd.grad(square, shake.weights, allow_unused=True))
    point, residual = (tree_map(Tensor.detach, z) for z in (point, residual))
    moved = shake.difference(lambda: TAUGHT[type(law).__name__](seen, s, t, point))
    expected = 2 * path.space.inner(point, residual, moved).sum()
    laws.equal(f"gradient of the flow map with {law!r}", given, expected, tol)
