"""Outlines of masks as polygons along the edges of pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import BadRequest

MAX_EDGES = 2_000_000  # pixel edges in the contours of one mask; more would need hundreds of megabytes

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


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
    stride = mask.shape[1] + 1
    # The vertex at x, y has the number y * stride + x. An edge has the number of its left or upper vertex.
    is_set = padded[1:, 1:]
    across, down = np.flatnonzero(is_set != padded[:-1, 1:]), np.flatnonzero(is_set != padded[1:, :-1])
    if (count := len(across) + len(down)) > MAX_EDGES:
        raise BadRequest(
            f"expected masks with at most {MAX_EDGES:,} pixel edges in their contours, got {count:,}; "
            "use mask_encoding rle"
        )
    down = down[np.lexsort((down, down % stride))]  # column by column
    # Edges are directed so that the mask is on their right: top edges lead right, and right edges lead down.
    horizontal = _sides(across, 1, is_set[np.divmod(across, stride)] == 1)
    vertical = _sides(down, stride, is_set[np.divmod(down, stride)] == 0)
    corners, lengths = _outer_loops(horizontal, vertical)
    numbers = np.stack([corners % stride, corners // stride], 1).ravel().astype(np.float64).tolist()
    ends = (2 * np.cumsum(lengths)).tolist()
    return [numbers[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class _Sides(NamedTuple):
    """Straight sides of contours, all horizontal or all vertical.

    Attributes:
        starts: (n,) vertices where the sides start.
        ends: (n,) vertices where they end.
        forward: (n,) whether the sides lead to the right, or down.
    """

    starts: Numbers
    ends: Numbers
    forward: Flags


def _sides(edges: Numbers, step: int, forward: Flags) -> _Sides:
    """Join edges of pixels into straight sides.

    Args:
        edges: (n,) the vertex at the left or upper end of each edge, line by line.
        step: the difference of the numbers of an edge's vertices.
        forward: (n,) whether each edge leads to the right, or down.
    """
    is_first = np.append(True, (np.diff(edges) != step) | (forward[1:] != forward[:-1]))[: len(edges)]
    first = np.flatnonzero(is_first)
    last = np.append(first[1:], len(edges))[: len(first)] - 1
    low, high, is_forward = edges[first], edges[last] + step, forward[first]
    return _Sides(np.where(is_forward, low, high), np.where(is_forward, high, low), is_forward)


def _following(sides: _Sides, candidates: _Sides, turns: Flags) -> Numbers:
    """Return the index of the candidate that starts where each side ends, (n,).

    Where two pieces touch at a corner, two candidates start at the same vertex. The one that turns right belongs to the
    same piece.

    Args:
        sides: n sides.
        candidates: sides in the other direction.
        turns: (n,) whether a right turn after each side leads forward.
    """
    order = np.argsort(2 * candidates.starts + candidates.forward)
    starts = candidates.starts[order]
    is_pair = np.append(starts[1:] == starts[:-1], False)
    place = np.searchsorted(starts, sides.ends)
    return np.asarray(order[place + (is_pair[place] & turns)])


def _outer_loops(horizontal: _Sides, vertical: _Sides) -> tuple[Numbers, Numbers]:
    """Join sides into closed loops. Loops around holes have the opposite direction and are left out.

    Every side learns the smallest vertex of its loop, and its distance to the side that starts there, by looking 1, 2,
    4, ... sides ahead (pointer jumping: Wyllie, "The Complexity of Parallel Computations", 1979).

    Returns:
        The corners of all loops, loop by loop, and the number of corners of each loop.
    """
    down = _following(horizontal, vertical, horizontal.forward)
    following = _following(vertical, horizontal, ~vertical.forward)[down]  # the next horizontal side
    leftmost = np.minimum(horizontal.starts, horizontal.ends)
    label, ahead = leftmost, following
    while (smaller := np.minimum(label, label[ahead])).tobytes() != label.tobytes():
        label, ahead = smaller, ahead[ahead]
    is_first = leftmost == label
    ahead, distance = np.where(is_first, np.arange(len(label)), following), (~is_first).astype(np.int64)
    while not is_first[ahead].all():
        distance, ahead = distance + distance[ahead], ahead[ahead]
    distance[is_first] = len(label)
    order = np.argsort(label * (len(label) + 1) - distance)
    firsts = np.flatnonzero(is_first[order])
    lengths = np.diff(np.append(firsts, len(order)))
    is_outer = horizontal.forward[order[firsts]]
    order = order[np.repeat(is_outer, lengths)]
    corners = np.stack([horizontal.starts[order], horizontal.ends[order]], 1).ravel()
    return corners, 2 * lengths[is_outer]
