"""Triangle meshes: surfaces that are given by vertices and faces.

Points are on the faces, tangents in their planes. ``exp`` follows straight lines across the edges (Polthier & Schmies
1998), and slides along a boundary. There is no logarithm: geodesics between two given points are costly, so flows on
meshes descend a spectral distance instead (Chen & Lipman 2024, section 3.2), the biharmonic or the diffusion distance
of the eigenfunctions of the cotangent Laplacian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from fm_science.declarations import derived
from fm_science.spaces.base import BoundLeaf, Leaf, total
from fm_science.spaces.numerics import ratio, safe_norm, safe_sqrt
from fm_science.spaces.spectral import SpectralDistance, laplacian_spectrum, spectral_distance
from fm_science.state import Context


def closest(x: Tensor, corners: Tensor) -> Tensor:
    """Barycentric coordinates ``(..., 3)`` of the points of triangles ``(..., 3, 3)`` nearest to ``x`` ``(..., 3)``."""
    a, b, c = corners.unbind(-2)
    p, ab, ac, bc = x - a, b - a, c - a, c - b
    aa, bb, cross, pa, pc = ((u * v).sum(-1) for u, v in ((ab, ab), (ac, ac), (ab, ac), (p, ab), (p, ac)))
    area = aa * bb - cross * cross
    inner = torch.stack([(bb * pa - cross * pc) / area, (aa * pc - cross * pa) / area], -1)
    s = ((x - b) * bc).sum(-1).div((bc * bc).sum(-1)).clamp(0, 1)
    zero = torch.zeros_like(s)
    edges = [((pa / aa).clamp(0, 1), zero), (zero, (pc / bb).clamp(0, 1)), (1 - s, s)]
    weights = torch.stack([inner, *(torch.stack(pair, -1) for pair in edges)], -2)  # (..., 4, 2), of b and c
    gap = p[..., None, :] - weights[..., :1] * ab[..., None, :] - weights[..., 1:] * ac[..., None, :]
    square = (gap * gap).sum(-1)
    outside = (inner < 0).any(-1) | (inner.sum(-1) > 1)
    square = torch.cat([square[..., :1].masked_fill(outside[..., None], float("inf")), square[..., 1:]], -1)
    best = square.argmin(-1)[..., None, None].expand(*square.shape[:-1], 1, 2)
    chosen = weights.gather(-2, best).squeeze(-2)
    return torch.cat([1 - chosen.sum(-1, keepdim=True), chosen], -1)


@dataclass(frozen=True, eq=False)
class Mesh(Leaf):
    """A triangulated surface in space, in the units of its vertices. It satisfies the laws of ``exp(x, 0)``,
    ``project``, ``tangent`` and ``distance``, and has no ``log``. Nearest points are exact: a face is only left out if
    a ball around it shows that it does not have the nearest one.

    Args:
        vertices: ``(V, 3)`` positions.
        faces: ``(F, 3)`` numbers of the corners of each triangle.
        modes: eigenfunctions of the Laplacian in the spectral distances.
        crossings: maximum number of edges that one move may cross; the rest of a longer move is dropped.
    """

    vertices: Tensor = field(repr=False)
    faces: Tensor = field(repr=False)
    modes: int = 32
    crossings: int = 64
    on: str = "nodes"
    event = (3,)
    dimension = 2
    geodesic = False

    def __post_init__(self) -> None:
        for name, x in (("vertices", self.vertices), ("faces", self.faces)):
            if x.ndim != 2 or x.shape[1] != 3:
                raise ValueError(f"Mesh({name}) has shape {tuple(x.shape)}; expected (n, 3).")
        if int(self.faces.min()) < 0 or int(self.faces.max()) >= len(self.vertices):
            raise ValueError(f"Mesh(faces) names vertices beyond 0..{len(self.vertices) - 1}.")
        if bool((self._areas <= 0).any()):
            raise ValueError(f"Mesh has {int((self._areas <= 0).sum())} faces without area; remove them first.")

    @cached_property
    def _corners(self) -> Tensor:
        return self.vertices.double()[self.faces]

    @cached_property
    def _areas(self) -> Tensor:
        a, b, c = self._corners.unbind(1)
        return 0.5 * torch.linalg.cross(b - a, c - a).norm(dim=-1)

    @derived
    def volume(self) -> float:
        return float(self._areas.sum())

    @cached_property
    def neighbours(self) -> Tensor:
        """``(F, 3)``: the face across the edge opposite to each corner, -1 at a boundary."""
        opposite = torch.tensor([[1, 2], [2, 0], [0, 1]])
        edges = self.faces.cpu()[:, opposite].sort(-1).values.reshape(-1, 2)
        index = torch.unique(edges, dim=0, return_inverse=True)[1]
        order = index.argsort(stable=True)
        same = index[order][1:] == index[order][:-1]
        out = torch.full((len(edges),), -1)
        first, second = order[:-1][same], order[1:][same]
        out[first], out[second] = second // 3, first // 3
        return out.reshape(-1, 3)

    @cached_property
    def _balls(self) -> tuple[Tensor, Tensor]:
        """A ball around each face: centres ``(F, 3)``, its centroid, and radii ``(F,)``."""
        centre = self._corners.mean(1)
        return centre, (self._corners - centre[:, None]).norm(dim=-1).amax(1)

    def locate(self, x: Tensor) -> Tensor:
        """The face ``(...)`` nearest to each point ``(..., 3)``; the first of several equally near."""
        chunk = max(1, 4_000_000 // len(self.faces))
        faces = [self._nearest(points) for points in x.detach().reshape(-1, 3).split(chunk)]
        return torch.cat(faces).reshape(x.shape[:-1])

    def _nearest(self, points: Tensor) -> Tensor:
        """The face nearest to each of ``points`` ``(P, 3)``, among those whose ball is near enough."""
        corners, (centre, radius) = self._corners.to(points), (ball.to(points) for ball in self._balls)
        gap = torch.cdist(points, centre, compute_mode="donot_use_mm_for_euclid_dist")
        reach = gap.amin(1, keepdim=True)  # a centroid is on the surface
        row, face = (gap - radius <= reach * (1 + 1e-4)).nonzero(as_tuple=True)
        place = closest(points[row], corners[face])
        away = ((place[..., None] * corners[face]).sum(-2) - points[row]).square().sum(-1)
        least = torch.full_like(reach[:, 0], torch.inf).scatter_reduce(0, row, away, "amin")
        hit = away <= least[row]
        last = torch.full((len(points),), len(corners), device=points.device)
        return last.scatter_reduce(0, row[hit], face[hit], "amin")

    def coordinates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The face ``(...)`` of each point and its barycentric coordinates ``(..., 3)`` there, differentiable."""
        face = self.locate(x)
        return face, closest(x, self._corners.to(x)[face])

    def origin(self, like: Tensor) -> Tensor:
        return self._corners[0].mean(0).to(like)

    def project(self, x: Tensor) -> Tensor:
        face, weights = self.coordinates(x)
        return (weights[..., None] * self._corners.to(x)[face]).sum(-2)

    def _flatten(self, face: Tensor, u: Tensor) -> Tensor:
        """``u`` without its component along the normal of ``face``."""
        a, b, c = self._corners.to(u)[face].unbind(-2)
        normal = torch.linalg.cross(b - a, c - a)
        return u - (u * normal).sum(-1, keepdim=True) / (normal * normal).sum(-1, keepdim=True) * normal

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return self._flatten(self.locate(x), u)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        face, weights = self.coordinates(x)
        u = self._flatten(face, u)
        face, weights, u = self._cross(face, weights, u)
        for _ in range(self.crossings - 1):
            rows = u.any(-1)  # those still moving: one synchronisation is cheaper than the crossings it saves
            if not bool(rows.any()):
                break
            moved = self._cross(face[rows], weights[rows], u[rows])
            face, weights, u = (z.index_put((rows,), new) for z, new in zip((face, weights, u), moved, strict=True))
        return (weights[..., None] * self._corners.to(x)[face]).sum(-2)

    def _cross(self, face: Tensor, weights: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move to the end of ``u`` or to the next edge, and across it: the new face, the position and the rest of the
        move."""
        corners = self._corners.to(u)[face]
        rate = _rates(corners, u)
        leaving = rate < 0
        time = torch.where(leaving, ratio(weights.clamp_min(0), -rate, 0.0), float("inf"))
        first, side = time.min(-1)
        whole = first >= 1
        step = torch.where(whole, 1.0, first.clamp(0, 1))[..., None]
        weights = (weights + step * rate).clamp_min(0)
        weights = weights / weights.sum(-1, keepdim=True)
        x, rest = (weights[..., None] * corners).sum(-2), (1 - step) * u
        across = self.neighbours.to(face.device)[face, side]
        inside = torch.where(across < 0, face, across)
        along, out = _edge(corners, side)
        target = self._corners.to(u)[inside]
        back = (self.neighbours.to(face.device)[inside] == face[..., None]).to(torch.uint8).argmax(-1)
        into = -_edge(target, back)[1]
        push = torch.where((across < 0)[..., None], 0.0, (rest * out).sum(-1, keepdim=True))
        rest = (rest * along).sum(-1, keepdim=True) * along + push * into
        stop = whole[..., None]
        moved = torch.where(stop, weights, closest(x, target))
        return torch.where(whole, face, inside), moved, torch.where(stop, 0.0, rest)

    def gradient(self, x: Tensor, slope: Tensor) -> Tensor:
        return self.tangent(x, slope)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        raise TypeError("Mesh has no log: use a path that descends a distance, Simulated(mesh, mesh.biharmonic()).")

    def uniform(self, sites: Sequence[int], like: Tensor) -> Tensor:
        face = torch.multinomial(self._areas.to(like.device), max(1, torch.Size(sites).numel()), replacement=True)
        weights = torch.empty(len(face), 3, dtype=like.dtype, device=like.device).exponential_()
        weights = weights / weights.sum(-1, keepdim=True)
        return (weights[..., None] * self._corners.to(like)[face]).sum(-2).reshape(*sites, 3)

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """The smallest nonzero eigenvalues ``(K,)`` of the Laplacian and the eigenfunctions ``(V, K)`` at vertices."""
        return laplacian_spectrum(self.vertices, self.faces, self.modes)

    @cached_property
    def _biharmonic(self) -> SpectralDistance:
        return spectral_distance(self)

    def biharmonic(self) -> SpectralDistance:
        """The biharmonic distance (Lipman, Rustamov & Funkhouser 2010): weights 1 / lambda²."""
        return self._biharmonic

    def diffusion(self, time: float = 0.25) -> SpectralDistance:
        """The diffusion distance (Coifman & Lafon 2006): weights exp(-2 time lambda)."""
        return spectral_distance(self, "diffusion", time=time)

    def bind(self, context: Context) -> MeshSites:
        return MeshSites(self, context.sites(self.on), context.frozen(self.on), context.known)


class MeshSites(BoundLeaf):
    """The bound form of :class:`Mesh`: its distance is the biharmonic one."""

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        gap = torch.where(self.free_mask, self.leaf.biharmonic()(x, y), 0.0)  # type: ignore[attr-defined]
        return safe_sqrt(total(gap * gap))


def _rates(corners: Tensor, u: Tensor) -> Tensor:
    """How fast the barycentric coordinates change along ``u`` in the plane of the triangle, ``(..., 3)``."""
    a, b, c = corners.unbind(-2)
    ab, ac = b - a, c - a
    aa, bb, cross, ua, uc = ((p * q).sum(-1) for p, q in ((ab, ab), (ac, ac), (ab, ac), (u, ab), (u, ac)))
    area = aa * bb - cross * cross
    s, t = (bb * ua - cross * uc) / area, (aa * uc - cross * ua) / area
    return torch.stack([-s - t, s, t], -1)


def _edge(corners: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    """The unit vector along the edge opposite to corner ``side``, and the unit vector out of the triangle there."""

    def corner(k: int) -> Tensor:
        index = ((side + k) % 3)[..., None, None].expand(*side.shape, 1, 3)
        return corners.gather(-2, index).squeeze(-2)

    along = corner(2) - corner(1)
    along = along / safe_norm(along)
    out = corner(1) - corner(0)
    out = out - (out * along).sum(-1, keepdim=True) * along
    return along, out / safe_norm(out)
