"""Procedural meshes: surfaces of revolution, tubes, boxes and balls.

Blender's Python runs this module, `things` and `layout`, so they import numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Points = NDArray[np.float64]
Faces = list[tuple[int, ...]]
Vector = Sequence[float] | Points  # x, y, z

AROUND = 24  # points of each ring of a surface of revolution; Blender subdivides the surface
TUBE = 10  # points of each ring of a tube
THIN = 1e-3  # the smallest radius, instead of 0, so that no two vertices coincide


class Part(NamedTuple):
    """A part of a thing.

    Attributes:
        points: (n, 3), the vertices. The z axis points up.
        faces: The indices of each face's vertices, in order around the face.
        materials: The kinds of material that fit. Empty: the part has the material of the part before it.
        smooth: Whether Blender rounds the surface by subdivision.
    """

    points: Points
    faces: Faces
    materials: tuple[str, ...] = ()
    smooth: bool = True


def revolve(profile: Sequence[tuple[float, float]], materials: tuple[str, ...] = (), smooth: bool = True) -> Part:
    """Return a surface of revolution around the z axis, closed at both ends.

    Args:
        profile: Radius and height of each point, from the bottom upwards along the outside.
        materials: See `Part`.
        smooth: See `Part`.
    """
    radius, height = np.array(profile, np.float64).T[:, :, None]
    angles = np.arange(AROUND) * (2 * np.pi / AROUND)
    radius = np.maximum(radius, THIN)
    rings = np.stack(
        [radius * np.cos(angles), radius * np.sin(angles), np.broadcast_to(height, (len(height), AROUND))], 2
    )
    return Part(rings.reshape(-1, 3), _faces(len(height), AROUND, loop=False), materials, smooth)


def tube(path: Points, radii: Points, materials: tuple[str, ...] = (), flat: float = 1.0, loop: bool = False) -> Part:
    """Return a tube along a path.

    Args:
        path: (n, 3), the centre of each ring.
        radii: (n,), the radius of each ring.
        materials: See `Part`.
        flat: The height of the cross section as a multiple of its width.
        loop: Whether the last ring is joined to the first.
    """
    along = np.roll(path, -1, 0) - np.roll(path, 1, 0) if loop else np.gradient(path, axis=0)
    # Rings around one fixed direction do not twist. It is the direction in which the path extends least.
    fixed = np.eye(3)[int(np.argmin(np.ptp(path, axis=0)))]
    side = _unit(np.cross(along, fixed))
    up = _unit(np.cross(along, side))
    angles = np.arange(TUBE)[:, None] * (2 * np.pi / TUBE)
    rings = np.cos(angles) * side[:, None] + flat * np.sin(angles) * up[:, None]
    points = path[:, None] + radii[:, None, None] * rings
    return Part(points.reshape(-1, 3), _faces(len(path), TUBE, loop), materials)


def box(low: Sequence[float], high: Sequence[float], materials: tuple[str, ...] = ()) -> Part:
    """Return a box between two corners (x, y, z)."""
    points = np.array([(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    faces: Faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return Part(points, faces, materials, smooth=False)


def ball(centre: Vector, radii: Vector, materials: tuple[str, ...] = (), rng: Rng | None = None) -> Part:
    """Return an ellipsoid with three radii. With a random generator, it has bumps."""
    heights = -np.cos(np.linspace(0, np.pi, 11))
    part = revolve([(float(np.sqrt(max(0.0, 1 - z * z))), float(z)) for z in heights], materials)
    points = part.points
    if rng is not None:
        waves, phases = rng.normal(0, 1.6, (6, 3)), rng.uniform(0, 2 * np.pi, 6)
        points = points * (1 + np.sin(points @ waves.T + phases) @ rng.normal(0, 0.06, 6))[:, None]
    return part._replace(points=points * np.array(radii) + np.array(centre))


def arc(start: Vector, end: Vector, bulge: Vector, count: int = 9) -> Points:
    """Return points on a curve from `start` to `end`, whose middle is moved by `bulge`, (count, 3)."""
    t = np.linspace(0, 1, count)[:, None]
    line = np.array(start) * (1 - t) + np.array(end) * t
    return np.asarray(line + np.sin(np.pi * t) * np.array(bulge))


def _unit(vectors: Points) -> Points:
    return np.asarray(vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12))


def _faces(rings: int, count: int, loop: bool) -> Faces:
    """Return the faces between successive rings of `count` points, and the two faces that close an open tube."""
    faces: Faces = []
    for ring in range(rings if loop else rings - 1):
        low, high = ring * count, (ring + 1) % rings * count
        faces += [(low + i, low + (i + 1) % count, high + (i + 1) % count, high + i) for i in range(count)]
    if not loop:
        faces += [tuple(range(count))[::-1], tuple(range((rings - 1) * count, rings * count))]
    return faces
