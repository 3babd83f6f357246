"""Simplification of polygons, for clients whose users edit the corners."""

from __future__ import annotations

import numpy as np


def perimeter(polygon: np.ndarray) -> float:
    """Return the length in pixels of a closed polygon of (n, 2) x,y."""
    return float(np.linalg.norm(polygon - np.roll(polygon, 1, axis=0), axis=1).sum())


def simplify_outline(polygon: np.ndarray, share: float) -> np.ndarray:
    """Leave out corners of the outline of a mask.

    Args:
        polygon: (n, 2) x,y in pixels.
        share: tolerance as a share of the outline's length; 0 keeps every corner. Otherwise the tolerance is at least a
            pixel, because an outline that follows the edges of pixels has a corner at every step.

    Returns:
        (m, 2) corners.
    """
    return simplify(polygon, max(1.0, share * perimeter(polygon)) if share else 0.0)


def simplify(polygon: np.ndarray, tolerance: float) -> np.ndarray:
    """Leave out corners of a closed polygon, as Ramer (1972) and Douglas and Peucker (1973) do.

    Args:
        polygon: (n, 2) x,y in pixels; the last corner is joined to the first.
        tolerance: maximum distance in pixels of a left-out corner from the new outline.

    Returns:
        (m, 2) corners of the polygon, in their order; 3 <= m <= n for n >= 3.

    Example:
        >>> square = np.array([[0, 0], [2, 0], [4, 0], [4, 4], [2, 4.5], [0, 4]])
        >>> simplify(square, 0.6).tolist()
        [[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]]
    """
    count = len(polygon)
    if count <= 3 or tolerance <= 0:
        return polygon
    # A closed outline is two lines between two corners that surely stay: the first, and the one farthest from it.
    far = int(((polygon - polygon[0]) ** 2).sum(axis=1).argmax())
    closed = np.vstack([polygon, polygon[:1]])
    stays = np.zeros(count + 1, bool)
    stays[[0, far, count]] = True
    lines = [(0, far), (far, count)]
    while lines:
        start, end = lines.pop()
        if end - start < 2:
            continue
        distances = _distances(closed[start + 1 : end], closed[start], closed[end])
        farthest = int(distances.argmax())
        if distances[farthest] > tolerance:
            middle = start + 1 + farthest
            stays[middle] = True
            lines += [(start, middle), (middle, end)]
    kept = polygon[stays[:count]]
    if len(kept) >= 3:
        return kept
    # All corners are close to one line: the one farthest from it keeps the polygon from having no area.
    distances = _distances(polygon, polygon[0], polygon[far])
    stays[int(distances.argmax())] = True
    return polygon[stays[:count]]


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the distance of (n, 2) points from the line segment between two points."""
    direction = end - start
    length = float(direction @ direction)
    along = np.clip((points - start) @ direction / length, 0, 1) if length else np.zeros(len(points))
    nearest = start + along[:, None] * direction
    return np.asarray(np.linalg.norm(points - nearest, axis=1))
