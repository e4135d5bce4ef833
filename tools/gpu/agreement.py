"""The same numbers on a device as on the CPU: one case for every space, prior, path, solver, density and coupling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science import (
    IGSO3,
    RK4,
    SO3,
    SPD,
    VE,
    VP,
    Adaptive,
    Categorical,
    Centered,
    Churn,
    Classes,
    Context,
    Cosine,
    Endpoint,
    Euclidean,
    Euler,
    EulerMaruyama,
    Exponential,
    Flow,
    Functions,
    Gaussian,
    GaussianProcess,
    Geodesic,
    Harmonic,
    Heun,
    Hyperbolic,
    Interpolant,
    Langevin,
    Linear,
    LipmanOT,
    Matern,
    Midpoint,
    Noise,
    Normal,
    Permutations,
    Polynomial,
    Posterior,
    PredictorCorrector,
    ProductPath,
    ProductPrior,
    Rotations,
    Score,
    Sinkhorn,
    Sphere,
    SubVP,
    Torus,
    Transport,
    Trigonometric,
    Unbalanced,
    Uniform,
    Velocity,
    Wrapped,
    frames,
)
from fm_science.spaces import Space
from fm_science.state import State, leaves, tree_map
from fm_science.testing.laws import random_point

BATCH, SITES = 6, 4
Move = Callable[[Any], Any]  #: brings points or a context to the device under test


@dataclass(frozen=True)
class Case:
    """Something to compute: ``compute(move)`` gives tensors from inputs that it makes on the CPU and moves.
    ``exact``: whether they are the same everywhere; else only that they are finite is checked, since they are random.
    """

    name: str
    compute: Callable[[Move], list[State]]
    exact: bool = True


def compared(case: Case, device: torch.device, dtype: torch.dtype, bound: float) -> dict[str, Any]:
    """A row: the largest difference from the CPU in double precision, in units of the largest number."""

    def found(device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        def to(value: Tensor) -> Tensor:
            return value.to(device, dtype) if value.is_floating_point() else value.to(device)

        def move(value: Any) -> Any:
            if isinstance(value, Context):
                return Context(value.mask.to(device), {k: to(v) for k, v in value.cond.items()})
            return tree_map(to, value)

        torch.manual_seed(0)
        return [x for state in case.compute(move) for x in leaves(state)]

    try:
        there, here = found(device, dtype), found(torch.device("cpu"), torch.float64)
        away = [x.device.type for x in there if x.device.type != device.type]
        finite = all(bool(x.isfinite().all()) for x in there)
        pairs = zip(there, here, strict=True)
        error = max(float((a.cpu().double() - b).abs().max() / b.abs().max().clamp_min(1)) for a, b in pairs)
    except Exception as wrong:
        return {"name": case.name, "ok": False, "note": f"{type(wrong).__name__}: {' '.join(str(wrong).split())[:90]}"}
    ok = finite and not away and (error <= bound or not case.exact)
    note = "left the device" if away else "" if finite else "not finite"
    return {"name": case.name, "ok": ok, "note": note, **({"error": error} if case.exact else {})}


def cases() -> Iterator[Case]:
    """All of them."""
    for room in (of_spaces, of_priors, of_paths, of_solvers, of_densities, of_couplings):
        yield from room()


SPACES: dict[str, tuple[Space, Any]] = {
    "Euclidean": (Euclidean(3), Normal()), "Centered": (Centered(), Normal()), "Torus": (Torus(2), Uniform()),
    "Sphere": (Sphere(2), Uniform()), "Hyperbolic": (Hyperbolic(2), Wrapped(0.7)), "SO3": (SO3(), Uniform()),
    "SPD": (SPD(2), Wrapped(0.5)), "Functions": (Functions(1), Normal()),
    "frames": (frames(), ProductPrior(translations=Normal(), rotations=Uniform())),
}  # fmt: skip


def context() -> Context:
    """A ragged batch, with sensors for those who want them."""
    sizes = torch.tensor([SITES, SITES - 1] * (BATCH // 2))
    coords = torch.linspace(0, 1, SITES, dtype=torch.float64).expand(BATCH, SITES)[..., None]
    return Context(torch.arange(SITES) < sizes[:, None], {"coords": coords})


def points(space: Space, seed: int, given: Context | None = None) -> State:
    """Points on the CPU in double precision."""
    torch.manual_seed(seed)
    return random_point(space.bind(given or context()), torch.float64, 0.7)


def times() -> Tensor:
    return torch.linspace(0.1, 0.9, BATCH, dtype=torch.float64)


class Field:
    """A smooth velocity without weights, the same on every device."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def __call__(self, x: State, t: Tensor, context: Context) -> State:
        if isinstance(x, dict):
            return {name: Field(self.space.parts[name])(part, t, context) for name, part in x.items()}
        event = self.space.tangent_event
        flat = x.reshape(*x.shape[:2], -1)
        wide = torch.stack([torch.sin((k + 1) * flat.sum(-1)) for k in range(torch.Size(event).numel())], -1)
        size = 0.02 if isinstance(self.space, SPD) else 0.2  # near the edge of SPD small matrices are long ways
        return size * wide.reshape(*x.shape[:2], *event)


def of_spaces() -> Iterator[Case]:
    for name, (space, _) in SPACES.items():

        def compute(move: Move, space: Space = space) -> list[State]:
            s = space.bind(move(context()))
            x, y = move(points(space, 1)), move(points(space, 2))
            u = s.log(x, y)
            half = tree_map(lambda v: 0.5 * v, u)
            return [u, s.exp(x, half), s.project(y), s.distance(x, y), s.inner(x, u, u), s.transport(x, y, u)]

        yield Case(f"space {name}", compute)

    def classes(move: Move) -> list[State]:
        s = Categorical(5).bind(move(context()))
        x, y = move(points(Categorical(5), 1)), move(points(Categorical(5), 2))
        return [s.log(x, y), s.distance(x, y), s.project(y)]

    yield Case("space Categorical", classes)


def of_priors() -> Iterator[Case]:
    more = {
        "IGSO3": (SO3(), IGSO3(0.7)), "GaussianProcess": (Functions(1), GaussianProcess(Matern(1.5, 0.3))),
        "Classes": (Categorical(3), Classes([0.2, 0.3, 0.5])), "Harmonic": (Centered(), Harmonic()),
        "Wrapped sphere": (Sphere(2), Wrapped(0.5)),
    }  # fmt: skip
    for name, (space, prior) in {**SPACES, **more}.items():

        def density(move: Move, space: Space = space, prior: Any = prior) -> list[State]:
            return [prior.log_prob(space.bind(move(context())), move(points(space, 3)))]

        def draw(move: Move, space: Space = space, prior: Any = prior) -> list[State]:
            there = move(context())
            return [prior.sample(space.bind(there), there)]

        yield Case(f"prior {name} log_prob", density)
        yield Case(f"prior {name} sample", draw, exact=False)


def of_paths() -> Iterator[Case]:
    def walked(path: Any, space: Space, prior: Any, move: Move, raw: Callable[[State, State], Any]) -> list[State]:
        there = move(context())
        p, x0, x1, t = path.bind(there, prior), move(points(space, 4)), move(points(space, 5)), move(times())
        x = p.sample(x0, x1, t)
        output = raw(x, x1)
        return [x, p.loss(output, x0, x1, x, t), p.velocity(output, x, t)]

    for name, (space, prior) in SPACES.items():
        path = ProductPath(**{k: Geodesic(part) for k, part in space.parts.items()}) if space.parts else Geodesic(space)

        def geodesic(move: Move, path: Any = path, space: Space = space, prior: Any = prior) -> list[State]:
            return walked(path, space, prior, move, lambda x, _: Field(space)(x, times(), context()))

        yield Case(f"path Geodesic {name}", geodesic)
    clocks = (Linear(), Cosine(), Trigonometric(), Polynomial(2.0), Exponential(3.0), VP(), SubVP(), VE(0.01, 5.0),
              LipmanOT(1e-3))  # fmt: skip
    for clock in clocks:
        for predicts in (Velocity(), Endpoint(), Noise(), Score()):
            try:
                path = Gaussian(Euclidean(3), clock, predicts)
            except (TypeError, ValueError):  # a pair that does not go together
                continue

            def gaussian(move: Move, path: Any = path) -> list[State]:
                return walked(path, Euclidean(3), Normal(), move, lambda x, _: 0.3 * x.sin())

            yield Case(f"path Gaussian {type(clock).__qualname__} {type(predicts).__qualname__}", gaussian)

    def interpolant(move: Move) -> list[State]:
        space = Euclidean(3)
        raw = {"velocity": Field(space), "noise": Field(space)}
        return walked(
            Interpolant(space), space, Normal(), move,
            lambda x, _: {name: field(x, times(), context()) for name, field in raw.items()},
        )[1:]  # fmt: skip

    yield Case("path Interpolant", interpolant, exact=False)


def of_solvers() -> Iterator[Case]:
    for solver in (Euler(), Midpoint(), Heun(), RK4(), Adaptive(1e-4, 1e-4)):
        for name in ("Euclidean", "Sphere", "SO3", "frames"):
            space, prior = SPACES[name]

            def walk(move: Move, space: Space = space, prior: Any = prior, solver: Any = solver) -> list[State]:
                flow = Flow(Geodesic(space), prior, Field(space))
                return [flow.transport(move(points(space, 6)), move(context()), solver, 10)]

            yield Case(f"solver {type(solver).__qualname__} {name}", walk)
    for solver in (Langevin(0.5), EulerMaruyama(0.5), Churn(), PredictorCorrector()):

        def random(move: Move, solver: Any = solver) -> list[State]:
            path = Gaussian(Euclidean(3), Linear(), Endpoint())
            return [Flow(path, Normal(), lambda x, t, c: 0.3 * x.sin()).sample(move(context()), solver, 10)]

        yield Case(f"solver {type(solver).__qualname__}", random, exact=False)

    def jumps(move: Move) -> list[State]:
        path = Geodesic(Categorical(3), predicts=Posterior())
        return [Flow(path, Classes([0.2, 0.3, 0.5]), lambda x, t, c: x).sample(move(context()), Euler(), 10)]

    yield Case("solver Euler of classes", jumps, exact=False)


def of_densities() -> Iterator[Case]:
    for name, (space, prior) in SPACES.items():

        def density(move: Move, space: Space = space, prior: Any = prior) -> list[State]:
            flow = Flow(Geodesic(space), prior, Field(space))
            return [flow.log_prob(move(points(space, 7)), move(context()), RK4(), 8)]

        yield Case(f"density {name}", density)


def of_couplings() -> Iterator[Case]:
    laws = {
        "Transport": Transport(ignore=("coords",)),
        "Transport Permutations": Transport(Permutations(), ignore=("coords",)),
        "Transport Rotations": Transport(Rotations(), ignore=("coords",)),
        "Transport Permutations Rotations": Transport(Permutations(), Rotations(), ignore=("coords",)),
        "Transport aligned": Transport(Rotations(), across_batch=False, ignore=("coords",)),
        "Sinkhorn": Transport(plan=Sinkhorn(0.5), ignore=("coords",)),
        "Unbalanced": Transport(plan=Unbalanced(0.5), ignore=("coords",)),
    }
    for name, law in laws.items():

        def pair(move: Move, law: Any = law) -> list[State]:
            there = Context.full(BATCH, SITES)
            space = Centered().bind(move(there))
            x0, x1 = (move(points(Centered(), seed, there)) for seed in (8, 9))
            paired, data, _ = law.pair(space, x0, x1, move(there))
            return [space.distance(paired, data)]

        yield Case(f"coupling {name}", pair, exact=not name.startswith(("Sinkhorn", "Unbalanced")))
