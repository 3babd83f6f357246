"""Outlines of masks as polygons along the edges of pixels."""

from __future__ import annotations

import numpy as np

from .errors import BadRequest

MAX_EDGES = 2_000_000  # pixel edges in the contours of one mask; more would take seconds


def to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Return the outer contours of a mask as COCO polygons.

    The contours run along pixel edges: a single pixel at x, y is the square from x,y to x+1,y+1. Filling the contours
    therefore restores the mask except for its holes. Pieces that touch only at a corner become separate polygons.

    Args:
        mask: (h, w) bool.

    Returns:
        `[[x1, y1, x2, y2, ...], ...]` in pixels, one polygon per piece, sorted by topmost and then leftmost pixel.

    Raises:
        BadRequest: the contours have more than MAX_EDGES edges, for example in a mask of noise.

    Example:
        >>> to_polygons(np.ones((1, 2), bool))
        [[0.0, 0.0, 2.0, 0.0, 2.0, 1.0, 0.0, 1.0]]
    """
    padded = np.pad(mask.view(np.uint8), 1)
    # Edges are directed so that the mask is on their right: top edges point right, bottom edges point left, and so on.
    step_down = np.diff(padded.astype(np.int8), axis=0)[:, 1:-1]  # (h + 1, w): between rows y - 1 and y
    step_right = np.diff(padded.astype(np.int8), axis=1)[1:-1]  # (h, w + 1): between columns x - 1 and x
    stride = mask.shape[1] + 1
    starts, ends = [], []
    for edges, (y_from, x_from), (y_to, x_to) in (
        (step_down == 1, (0, 0), (0, 1)),
        (step_down == -1, (0, 1), (0, 0)),
        (step_right == -1, (0, 0), (1, 0)),
        (step_right == 1, (1, 0), (0, 0)),
    ):
        ys, xs = np.nonzero(edges)
        starts.append((ys + y_from) * stride + xs + x_from)
        ends.append((ys + y_to) * stride + xs + x_to)
    if (count := sum(map(len, starts))) > MAX_EDGES:
        raise BadRequest(
            f"expected masks with at most {MAX_EDGES:,} pixel edges in their contours, got {count:,}; "
            "use mask_encoding rle"
        )
    return _outer_loops(np.concatenate(starts), np.concatenate(ends), stride)


def _outer_loops(starts: np.ndarray, ends: np.ndarray, stride: int) -> list[list[float]]:
    """Join directed edges of length 1 into closed loops.

    Where two pieces touch at a corner, two edges start at the same vertex. The edge that turns right belongs to the
    same piece. Loops around holes have the opposite direction and are left out.

    Args:
        starts: (n,) first vertex of each edge; the vertex at x, y has the number y * stride + x.
        ends: (n,) last vertex of each edge.
        stride: number of vertices in a row.
    """
    leaving: dict[int, list[int]] = {}
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        leaving.setdefault(start, []).append(end)
    right_turn = {1: stride, stride: -1, -1: -stride, -stride: 1}
    polygons = []
    for first in sorted(leaving):
        while leaving[first]:
            vertex, step = leaving[first].pop(), 0
            step = vertex - first
            corners, position, doubled_area = [first], first, 0
            while True:
                doubled_area += (position % stride) * (vertex // stride) - (vertex % stride) * (position // stride)
                position = vertex
                if position == first:
                    break
                targets = leaving[position]
                turn = position + right_turn[step]
                vertex = turn if turn in targets else targets[0]
                targets.remove(vertex)
                if vertex - position != step:
                    corners.append(position)
                    step = vertex - position
            if doubled_area > 0:
                polygons.append([float(n) for corner in corners for n in (corner % stride, corner // stride)])
    return polygons
