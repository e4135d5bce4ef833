"""The checks that are shipped to plugin authors catch what they promise to catch, and say what broke."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from fm_science.couplings import Coupling, Independent, Transport
from fm_science.paths import Gaussian, Geodesic, Interpolant, ProductPath
from fm_science.predictions import Endpoint, Noise, Posterior, Velocity
from fm_science.priors import Classes, Harmonic, Normal, Prior, ProductPrior, Uniform, Wrapped
from fm_science.schedules import VP, Exponential, Linear, Trigonometric
from fm_science.spaces import SO3, SPD, Categorical, Centered, Euclidean, Functions, Hyperbolic, Sphere, Torus, frames
from fm_science.spaces.base import BoundLeaf
from fm_science.state import Context, expand_like, take
from fm_science.symmetries import Rotations
from fm_science.testing import check_coupling, check_domain, check_network, check_path, check_prior, check_space
from tests.toy import build


@dataclass(frozen=True)
class Arccos(Sphere):
    """The textbook formula, which loses everything at short range."""

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        c = (x * y).sum(-1, keepdim=True)
        u = y - c * x
        return torch.acos(c) * u / u.norm(dim=-1, keepdim=True)


@dataclass(frozen=True)
class Chords(Sphere):
    """Right ends, wrong speed."""

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return self.tangent(x, y - x)


@dataclass(frozen=True)
class Projected(Sphere):
    """Claims a parallel transport and only projects."""

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return self.tangent(y, u)


class Leaky(BoundLeaf):
    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return self.leaf.exp(x, u)


@dataclass(frozen=True)
class Unpadded(Euclidean):
    """Forgets the padding."""

    def bind(self, context: Context) -> BoundLeaf:
        return Leaky(self, context.mask, context.frozen("nodes"), context.known)


@dataclass(frozen=True)
class Eager(Categorical):
    """Jumps more often than its rates say."""

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return super().exp(x, 1.5 * u)


@pytest.mark.parametrize(
    ("space", "law"),
    [
        (Arccos(2), "distance is finite"), (Chords(2), r"exp\(x, log\(x, y\)\) = y"),
        (Projected(2), "transport keeps inner products"), (Unpadded(2), "padded and frozen sites stay"),
        (Eager(3), "the mean of a move"),
    ],
    ids=["arccos", "chords", "projected", "unpadded", "eager"],
)  # fmt: skip
def test_broken_spaces_are_caught(space, law):
    with pytest.raises(AssertionError, match=law):
        check_space(space, seeds=(0,))


def test_the_message_has_numbers():
    with pytest.raises(AssertionError, match=r"breaks \d+ of \d+ laws:\n(.*\n)*.*error .*, allowed"):
        check_space(Chords(2), seeds=(0,))


def test_errors_come_back_by_law():
    errors = check_space(Torus(2), seeds=(0,))
    assert errors["exp(x, log(x, y)) = y"] < 1e-15
    assert len(errors) > 30


@dataclass(frozen=True)
class TooWide(Normal):
    """Draws with another width than its density has."""

    def sample(self, space, context):
        return replace(Normal(), std=1.3 * self.std).sample(space, context)


@dataclass(frozen=True)
class Unnormalised(Normal):
    def log_prob(self, space, x):
        return super().log_prob(space, x) + 0.2


@dataclass(frozen=True)
class Flattened(Wrapped):
    """Forgets that geodesics spread."""

    def log_prob(self, space, x):
        u = space.leaf.log(space.leaf.origin(x).expand_as(x), x)
        square = space.leaf.dot(x, u, u)[:, 0]
        return -0.5 * square / self.std**2 - 2 * math.log(self.std) - math.log(2 * math.pi)


class OffCentre(Prior):
    def sample(self, space, context):
        return torch.randn(*context.mask.shape, 3)


@pytest.mark.parametrize(
    ("prior", "space", "law"),
    [
        (TooWide(), Euclidean(2), "draws have the density"), (Unnormalised(), Euclidean(2), "integrates to one"),
        (OffCentre(), Centered(), "draws are points"), (Flattened(0.7), Sphere(2), "integrates to one"),
        (Flattened(0.7), Hyperbolic(2), "integrates to one"),
    ],
    ids=["too wide", "unnormalised", "off centre", "flat sphere", "flat hyperbola"],
)  # fmt: skip
def test_broken_priors_are_caught(prior, space, law):
    with pytest.raises(AssertionError, match=law):
        check_prior(prior, space, draws=5000)


PATHS = [
    (Geodesic(Euclidean(2)), Normal()), (Geodesic(Centered(), Trigonometric(), Endpoint()), Normal()),
    (Geodesic(Torus(2), Exponential(5.0)), Uniform()), (Geodesic(Sphere(2)), Uniform()),
    (Geodesic(SO3(), predicts=Endpoint()), Uniform()), (Geodesic(Hyperbolic(2)), Wrapped(1.0)),
    (Geodesic(SPD(2)), Wrapped(0.5)), (Geodesic(Functions(2)), Normal()),
    (Geodesic(Categorical(3), predicts=Posterior()), Classes([0.2, 0.3, 0.5])),
    (Geodesic(Categorical(3, on="edges"), predicts=Posterior()), Classes([0.2, 0.3, 0.5])),
    (Gaussian(Euclidean(2), VP(), Noise()), Normal(2.0)), (Gaussian(Centered(), Linear(), Endpoint()), Harmonic()),
    (Interpolant(Euclidean(2)), Normal()),
    (ProductPath(translations=Geodesic(Centered()), rotations=Geodesic(SO3())),
     ProductPrior(translations=Normal(), rotations=Uniform())),
]  # fmt: skip


@pytest.mark.parametrize(("path", "prior"), PATHS, ids=lambda p: repr(p)[:60])
def test_path_laws(path, prior):
    check_path(path, prior, seeds=(0,))


@dataclass(frozen=True)
class Late(Geodesic):
    """Lands a little beyond the datum."""

    def velocity_to_endpoint(self, x, u, t):
        return super().velocity_to_endpoint(x, 1.01 * u, t)


@dataclass(frozen=True)
class Slow(Velocity):
    """Reads the network's output as something else."""

    def velocity(self, path, raw, x, t):
        return path.space.tangent(x, 0.9 * raw)


def test_broken_paths_are_caught():
    with pytest.raises(AssertionError, match="velocity_to_endpoint undoes endpoint_to_velocity"):
        check_path(Late(Sphere(2)), Uniform(), seeds=(0,))
    path = Geodesic(Euclidean(2), predicts=Slow())
    exact = {"Slow": lambda path, x0, x1, x, t: path.endpoint_to_velocity(x, x1, t)}
    with pytest.raises(AssertionError, match="velocity is the derivative of sample"):
        check_path(path, Normal(), seeds=(0,), raw=exact)


class Reversed(Coupling):
    def pair(self, space, x0, x1, context):
        return x0, take(x1, torch.arange(context.size).flip(0)), context


class Doubled(Coupling):
    def pair(self, space, x0, x1, context):
        return take(x0, torch.zeros(context.size, dtype=torch.long)), x1, context


def test_couplings():
    check_coupling(Independent(), frames(), ProductPrior(translations=Normal(), rotations=Uniform()))
    check_coupling(Transport(), Centered(), Normal(), optimal=True)
    check_coupling(Transport(Rotations()), Centered(), Normal())
    for coupling, law in ((Reversed(), "data are untouched"), (Doubled(), "noise is kept")):
        with pytest.raises(AssertionError, match=law):
            check_coupling(coupling, Centered(), Normal())
    with pytest.raises(AssertionError, match="pairs are optimal"):
        check_coupling(Independent(), Centered(), Normal(), optimal=True)


class Equivariant(nn.Module):
    """Each point moves along the differences to the others, weighted by their length and the time; a product of three
    vectors tells left from right."""

    def __init__(self, chiral: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1))
        self.chiral = nn.Parameter(torch.ones(())) if chiral else None

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        gap = x[:, :, None] - x[:, None]
        square = gap.square().sum(-1, keepdim=True)
        weight = self.net(torch.cat([square, expand_like(t, square).expand_as(square)], -1))
        pair = (context.mask[:, :, None] & context.mask[:, None])[..., None]
        out = torch.where(pair, weight * gap, 0.0).sum(2)
        if self.chiral is not None:
            far = torch.where(pair, square * gap, 0.0).sum(2)
            out = out + self.chiral * torch.linalg.cross(out, far)
        return out


class Absolute(Equivariant):
    def forward(self, x, t, context):
        return super().forward(x, t, context) + x[..., :1]


class SeesPadding(Equivariant):
    def forward(self, x, t, context):
        return super().forward(x, t, context) * x.shape[1]


class SeesTheBatch(Equivariant):
    def forward(self, x, t, context):
        return super().forward(x, t, context) + x.mean()


class Idle(Equivariant):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)


POINTS = Context(torch.arange(5) < torch.tensor([2, 5, 4])[:, None])
CLOUD = Geodesic(Euclidean(3, vector=True))


def test_an_equivariant_network_passes():
    check_network(Equivariant(), CLOUD, Normal(), POINTS, [Rotations()], reflections=True)
    check_network(Equivariant(chiral=True), CLOUD, Normal(), POINTS, [Rotations()], reflections=False)


@pytest.mark.parametrize(
    ("network", "reflections", "law"),
    [
        (Absolute, None, "commutes with Rotations"), (Equivariant, False, "tells mirror images apart"),
        (lambda: Equivariant(chiral=True), True, "commutes with mirror images"),
        (SeesPadding, None, "padding changes nothing"), (SeesTheBatch, None, "other samples change nothing"),
        (Idle, None, "unused.weight"),
    ],
    ids=["absolute", "achiral", "chiral", "padding", "batch", "idle"],
)  # fmt: skip
def test_broken_networks_are_caught(network, reflections, law):
    with pytest.raises(AssertionError, match=law):
        check_network(network(), CLOUD, Normal(), POINTS, [Rotations()], reflections=reflections)


def test_domains():
    domain = build()
    errors = check_domain(domain)
    assert "every parameter gets a gradient" in errors
    with pytest.raises(AssertionError, match="metric radius gives named numbers"):
        check_domain(replace(domain, metrics={"radius": lambda samples, reference: {"radius": "large"}}))
    with pytest.raises(AssertionError, match="decode gives one object per sample"):
        check_domain(replace(domain, decode=lambda x, context: []))


def test_checks_leave_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    check_space(Torus(1), seeds=(0,))
    check_prior(Normal(), Euclidean(1), draws=1000)
    check_path(Geodesic(Euclidean(1)), Normal(), seeds=(0,))
    assert torch.equal(torch.rand(3), expected)
    assert math.isfinite(float(expected.sum()))
