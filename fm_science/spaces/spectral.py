"""Distances on a mesh from the eigenfunctions of its surface.

The eigenfunctions of the Laplacian embed a surface in a space of many dimensions, where points with a large geodesic
distance are far apart. The distance there is smooth, cheap and needs no search for a geodesic. It is a premetric on the
surface: zero at one point, positive elsewhere (Chen & Lipman 2024, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fm_science.spaces.numerics import safe_norm

if TYPE_CHECKING:
    from fm_science.spaces.mesh import Mesh

KINDS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "biharmonic": lambda value, time: 1 / value,
    "commute": lambda value, time: value.rsqrt(),
    "diffusion": lambda value, time: torch.exp(-time * value),
}


@dataclass(frozen=True, eq=False)
class SpectralDistance:
    """|psi(x) - psi(y)| on each site, psi the weighted eigenfunctions, linear on every face between its corners.

    Args:
        mesh: the surface.
        features: psi at the vertices, ``(V, K)``.
    """

    mesh: Mesh
    features: Tensor = field(repr=False)

    @cached_property
    def slopes(self) -> Tensor:
        """The gradient of psi at the vertices, ``(V, K, 3)``: the mean of those of the faces around, by area."""
        corners, faces = self.mesh.vertices.double()[self.mesh.faces], self.mesh.faces
        sides = corners.roll(-2, 1) - corners.roll(-1, 1)  # opposite to each corner
        normal = torch.linalg.cross(sides[:, 0], sides[:, 1])
        twice = normal.norm(dim=-1)[:, None, None]
        rates = torch.linalg.cross(
            (normal / twice[:, 0])[:, None], sides
        )  # twice the area times grad of a corner's share
        whole = torch.einsum("fcd,fck->fkd", rates, self.features.to(rates)[faces])
        out, area = whole.new_zeros(len(self.mesh.vertices), *whole.shape[1:]), whole.new_zeros(len(self.mesh.vertices))
        for k in range(3):
            out.index_add_(0, faces[:, k], whole)
            area.index_add_(0, faces[:, k], twice[:, 0, 0])
        return out / area[:, None, None]

    def embed(self, x: Tensor) -> Tensor:
        """psi ``(..., K)`` of points ``(..., 3)``, in their dtype. Its derivative is that of the vertices, interpolated
        like psi itself: more accurate than that of a face, and without jumps at its edges, where an integration would
        zigzag (gradient recovery; Zienkiewicz & Zhu 1987)."""
        face, place = self.mesh.coordinates(x.detach())
        corners, share = self.mesh.faces.to(x.device)[face], place[..., None]
        value = (share * self.features.to(x)[corners]).sum(-2)
        slope = (share[..., None] * self.slopes.to(x)[corners]).sum(-3)
        return value + (slope * (x - x.detach())[..., None, :]).sum(-1)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The distances ``(...)`` of points ``(..., 3)``; the gradient is zero at x = y."""
        return safe_norm(self.embed(x) - self.embed(y)).squeeze(-1)


def spectral_distance(
    mesh: Mesh, kind: str = "biharmonic", modes: int | None = None, time: float = 0.25
) -> SpectralDistance:
    """A spectral distance on a mesh: sqrt(sum_i w(lambda_i) (phi_i(x) - phi_i(y))²).

    Args:
        mesh: the surface.
        kind: "biharmonic", w = 1 / lambda² (Lipman, Rustamov & Funkhouser 2010); "commute", w = 1 / lambda (Fouss et
            al. 2007); or "diffusion", w = exp(-2 time lambda) (Coifman & Lafon 2006). The first suits paths best: few
            modes make it smooth, and it increases up to the far side.
        modes: eigenfunctions; default those of the mesh.
        time: of diffusion, in squared units of the vertices; short times resolve only nearby points.

    Raises:
        ValueError: for an unknown kind, and for a diffusion time that is not positive.
    """
    if kind not in KINDS:
        raise ValueError(f"spectral_distance(kind={kind!r}): expected one of {', '.join(map(repr, KINDS))}.")
    if kind == "diffusion" and not time > 0:
        raise ValueError(f"spectral_distance(time={time}): expected a positive time.")
    kept = modes is None or modes == mesh.modes
    values, functions = mesh.spectrum if kept else laplacian_spectrum(mesh.vertices, mesh.faces, modes or mesh.modes)
    return SpectralDistance(mesh, KINDS[kind](values, time) * functions)


def laplacian_spectrum(vertices: Tensor, faces: Tensor, modes: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``(modes,)`` and eigenfunctions ``(V, modes)``, orthonormal in the vertex areas, of the cotangent
    Laplacian (Pinkall & Polthier 1993), the constant left out; natural (Neumann) conditions at a boundary."""
    import numpy as np
    from scipy.sparse import coo_matrix, diags
    from scipy.sparse.linalg import eigsh

    v, f = vertices.detach().cpu().double().numpy(), faces.detach().cpu().numpy()
    n = len(v)
    entries: list[Any] = []
    area = np.zeros(n)
    for k in range(3):
        o, i, j = f[:, k], f[:, (k + 1) % 3], f[:, (k + 2) % 3]
        p, q = v[i] - v[o], v[j] - v[o]
        double = np.linalg.norm(np.cross(p, q), axis=1)
        entries.append((0.5 * (p * q).sum(1) / double, i, j))
        np.add.at(area, o, double / 6)
    w, i, j = (np.concatenate(x) for x in zip(*entries, strict=True))
    stiffness = coo_matrix((np.concatenate([-w, -w, w, w]), (np.r_[i, j, i, j], np.r_[j, i, i, j])), (n, n)).tocsc()
    count = min(modes, n - 2)
    start = np.cos(np.arange(n) ** 2)
    values, vectors = eigsh(stiffness, count + 1, diags(area).tocsc(), sigma=-1e-3 / area.sum(), v0=start)
    return torch.from_numpy(values[1:]), torch.from_numpy(vectors[:, 1:].copy())
