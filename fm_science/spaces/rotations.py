"""Rotations, and the rigid frames that are built from them.

A point of SO(3) is a 3x3 matrix; a tangent at R is a rotation vector w in the body frame (radians along the axis), so
that exp(R, w) = R expm(hat(w)). Both maps go through quaternions and smooth functions only: they and their gradients
stay finite and accurate from the identity to half turns, where formulas with arccos or skew/sin lose all accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.spaces.base import Leaf, Product
from fm_science.spaces.flat import Centered
from fm_science.spaces.numerics import even_norm, safe_norm, safe_sqrt, sinc, windings


def rotation_exp(w: Tensor) -> Tensor:
    """Rotation vector ``(..., 3)`` in radians to matrix, through the quaternion (cos(a/2), sin(a/2)/a w) of the angle
    a = |w|; both are even functions of it, so that w = 0 has all derivatives."""
    half = 0.5 * even_norm(w)
    return _unit_matrix(torch.cat([half.cos(), 0.5 * sinc(half) * w], -1))


def quaternion_matrix(q: Tensor) -> Tensor:
    """Quaternion ``(..., 4)``, real part first, of any nonzero length, to a rotation matrix."""
    return _unit_matrix(q / safe_norm(q))


def _unit_matrix(q: Tensor) -> Tensor:
    """Unit quaternion ``(..., 4)`` to rotation matrix."""
    w, x, y, z = q.unbind(-1)
    a, b, c = 2 * x, 2 * y, 2 * z
    xx, yy, zz, xy, xz, yz, wx, wy, wz = a * x, b * y, c * z, a * y, a * z, b * z, a * w, b * w, c * w
    rows = [1 - yy - zz, xy - wz, xz + wy, xy + wz, 1 - xx - zz, yz - wx, xz - wy, yz + wx, 1 - xx - yy]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def davenport(m: Tensor) -> Tensor:
    """The symmetric 4x4 matrix K of a 3x3 ``m`` with q'Kq = trace(R(q)'m) (Davenport 1968). Its top eigenvector is
    the quaternion of the rotation nearest to ``m``; for a rotation K = 4qq' - 1."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in m.unbind(-2))
    rows = [a + e + i, h - f, c - g, d - b, h - f, a - e - i, b + d, c + g,
            c - g, b + d, e - a - i, f + h, d - b, c + g, f + h, i - a - e]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (4, 4))


def _largest_column(k: Tensor) -> Tensor:
    """The unit column of the symmetric ``k`` with the largest diagonal entry."""
    index = k.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*k.shape[:-1], 1)
    q = k.gather(-1, index).squeeze(-1)
    return q / safe_norm(q)


def rotation_log(r: Tensor) -> Tensor:
    """Matrix ``(..., 3, 3)`` to rotation vector of length at most pi, by the largest quaternion component (Shepperd
    1978), exact at pi too."""
    eye = torch.eye(4, dtype=r.dtype, device=r.device)
    q = _largest_column(davenport(r) + eye)
    q = torch.where(q[..., :1] < 0, -q, q)
    w, v = q[..., :1], q[..., 1:]
    s = safe_norm(v)
    small = s < 1e-6  # there 2 atan2(s, w) / s = 2 to rounding, and the quotient would be 0 / 0
    return torch.where(small, 2.0, 2 * torch.atan2(s, w) / torch.where(small, 1.0, s)) * v


def _adjugate(a: Tensor) -> Tensor:
    """The transposed cofactors of symmetric 4x4 matrices, from the minors of their upper and lower halves."""
    (a00, a01, a02, a03), (_, a11, a12, a13), (_, _, a22, a23), (*_, a33) = (row.unbind(-1) for row in a.unbind(-2))
    s0, s1, s2 = a00 * a11 - a01 * a01, a00 * a12 - a01 * a02, a00 * a13 - a01 * a03
    s3, s4, s5 = a01 * a12 - a11 * a02, a01 * a13 - a11 * a03, a02 * a13 - a12 * a03
    c5, c4, c3 = a22 * a33 - a23 * a23, a12 * a33 - a13 * a23, a12 * a23 - a13 * a22
    c2, c1 = a02 * a33 - a03 * a23, a02 * a23 - a03 * a22
    b00, b01 = a11 * c5 - a12 * c4 + a13 * c3, a02 * c4 - a01 * c5 - a03 * c3
    b02, b03 = a13 * s5 - a23 * s4 + a33 * s3, a22 * s4 - a12 * s5 - a23 * s3
    b11, b12 = a00 * c5 - a02 * c2 + a03 * c1, a23 * s2 - a03 * s5 - a33 * s1
    b13, b22 = a02 * s5 - a22 * s2 + a23 * s1, a03 * s4 - a13 * s2 + a33 * s0
    b23, b33 = a12 * s2 - a02 * s4 - a23 * s0, a02 * s3 - a12 * s1 + a22 * s0
    rows = [b00, b01, b02, b03, b01, b11, b12, b13, b02, b12, b22, b23, b03, b13, b23, b33]
    return torch.stack(rows, -1).unflatten(-1, (4, 4))


def nearest_rotation(m: Tensor) -> Tensor:
    """The rotation nearest to an arbitrary 3x3 matrix, with a finite gradient everywhere.

    The gradient of a singular value decomposition is undefined at a rotation. So the largest eigenvalue l of
    Davenport's matrix K is found from its characteristic polynomial by Newton's method (Shuster & Oh 1981), and the
    eigenvector as a column of the adjugate of l - K. Where two rotations are almost equally near, the result is between
    them.
    """
    eye3, eye4 = (torch.eye(n, dtype=m.dtype, device=m.device) for n in (3, 4))
    m = m + torch.finfo(m.dtype).tiny ** 0.25 * eye3  # a zero matrix gives the identity
    m = m / safe_sqrt((m * m).sum((-2, -1), keepdim=True))
    a, b, c = m.unbind(-2)
    minors = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -2)
    det, constant = (a * minors[..., 0, :]).sum(-1), 1 - 4 * (minors * minors).sum((-2, -1))

    def newton(x: Tensor, det: Tensor, constant: Tensor) -> Tensor:
        slope = 4 * x * (x * x - 1) - 8 * det
        return x - (((x * x - 2) * x - 8 * det) * x + constant) / slope.clamp_min(64 * torch.finfo(x.dtype).eps)

    largest = torch.full_like(det, math.sqrt(3)).detach()  # never below the sum of the singular values
    for _ in range(16):
        largest = newton(largest, det.detach(), constant.detach())
    for _ in range(2):  # two more steps give the root its first and second derivatives
        largest = newton(largest, det, constant)
    return quaternion_matrix(_largest_column(_adjugate(largest[..., None, None] * eye4 - davenport(m))))


@dataclass(frozen=True)
class SO3(Leaf):
    """Rotations with the angle metric: distance is the angle in radians, the volume is 8 pi².

    Points ``(..., 3, 3)``; tangents ``(..., 3)``, body-frame rotation vectors: exp(R, w) = R expm(hat(w)).
    """

    event = (3, 3)
    tangent_event = (3,)
    dimension = 3
    volume = 8 * math.pi**2
    injectivity = math.pi
    isometric = True
    point = "rotation matrices, R'R = 1 and det R = 1"

    def origin(self, like: Tensor) -> Tensor:
        return torch.eye(3, dtype=like.dtype, device=like.device)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        y = x @ rotation_exp(u)
        return 1.5 * y - 0.5 * y @ (y.mT @ y)  # one Newton-Schulz step: rounding does not accumulate over many moves

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return rotation_log(x.mT @ y)

    def project(self, x: Tensor) -> Tensor:
        return nearest_rotation(x)

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return u  # left-invariant vector fields keep their body-frame components

    def gaussian(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape[:-1], dtype=x.dtype, device=x.device)

    def log_volume(self, x: Tensor, u: Tensor) -> Tensor:
        return 2 * sinc(0.5 * safe_norm(u).squeeze(-1)).abs().clamp_min(torch.finfo(u.dtype).tiny).log()

    def all_geodesics(self, u: Tensor, turns: int = 3) -> tuple[Tensor, Tensor]:
        angle = windings(safe_norm(u), turns)
        return angle.square(), 2 * sinc(0.5 * angle).abs().clamp_min(torch.finfo(u.dtype).tiny).log()

    def uniform(self, sites: Sequence[int], like: Tensor) -> Tensor:
        return quaternion_matrix(torch.randn(*sites, 4, dtype=like.dtype, device=like.device))

    def rotate(self, x: Tensor, rotation: Tensor) -> Tensor:
        # the frame of a mirrored body is mirrored in its first two axes; the third keeps it right-handed
        hand = torch.diag_embed(torch.nn.functional.pad(torch.linalg.det(rotation)[:, None], (2, 0), value=1.0))
        sites = (len(x), *[1] * (x.ndim - 3), 3, 3)
        return rotation.reshape(sites) @ x @ hand.reshape(sites)


def frames() -> Product:
    """One rigid frame per site: SE(3) as centred translations and rotations, the space of protein backbones (Yim et
    al. 2023). The part ``translations`` is ``(B, N, 3)``, ``rotations`` is ``(B, N, 3, 3)``."""
    return Product(translations=Centered(), rotations=SO3())
