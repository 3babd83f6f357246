"""Random everyday things, built from procedural meshes. A thing stands on the plane z = 0; the layout scales it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sam_endpoint.training.renders.meshes import Part, Rng, arc, ball, box, revolve, tube

Thing = list[Part]  # the first part names materials; later parts without materials have that of the part before

VESSEL = ("ceramic", "metal", "glass", "plastic", "wood", "photograph")
SOLID = ("plastic", "wood", "metal", "cloth", "photograph")
NATURAL = ("skin", "photograph")
COAT = ("cloth", "skin", "photograph")


def wall(outside: list[tuple[float, float]], thickness: float) -> list[tuple[float, float]]:
    """Return the profile of an open vessel: up along the outside, and down along the inside."""
    inside = [(max(0.0, r - thickness), z) for r, z in reversed(outside[1:])]
    return [*outside, *inside, (0.0, outside[0][1] + thickness)]


def cup(rng: Rng) -> Thing:
    """Return a cup or a mug with a handle."""
    top, height = rng.uniform(0.3, 0.45), rng.uniform(0.5, 0.95)
    low = top * rng.uniform(0.6, 1.0)
    body = [(low * 0.9, 0), (low, 0.03), ((low + top) / 2 * rng.uniform(0.95, 1.1), height / 2), (top, height)]
    cup = revolve([(0, 0), *wall(body, 0.035)], VESSEL)
    grip = arc((low * 0.9, 0, height * 0.2), (top * 0.95, 0, height * 0.85), (rng.uniform(0.25, 0.4), 0, 0))
    return [cup, tube(grip, np.full(9, rng.uniform(0.03, 0.06)))]


def bowl(rng: Rng) -> Thing:
    """Return a bowl, a plate or a saucer."""
    height = rng.uniform(0.06, 0.45)
    steep = rng.uniform(0.5, 1.6)
    outside = [(0.25, 0.0), *((0.25 + 0.25 * t, height * t**steep) for t in np.linspace(0.15, 1, 6).tolist())]
    return [revolve([(0, 0), *wall(outside, 0.025)], VESSEL)]


def bottle(rng: Rng) -> Thing:
    """Return a bottle with a cap and often a label."""
    radius, shoulder, neck = rng.uniform(0.14, 0.25), rng.uniform(0.5, 0.8), rng.uniform(0.05, 0.09)
    profile = [(0, 0), (radius * 0.95, 0), (radius, 0.04), (radius, shoulder), (neck, shoulder + 0.18), (neck, 1.05)]
    cap = revolve([(0, 1.0), (neck + 0.015, 1.0), (neck + 0.015, 1.1), (0, 1.1)], ("plastic", "metal"), smooth=False)
    parts = [revolve(profile, ("glass", "plastic", "metal", "ceramic")), cap]
    if rng.random() < 0.6:
        low, high, around = 0.15 * shoulder, 0.85 * shoulder, radius * 1.01
        parts.append(revolve([(around, low), (around, high)], ("photograph", "plastic"), smooth=False))
    return parts


def vase(rng: Rng) -> Thing:
    """Return a vase, sometimes with leaves."""
    widths = np.convolve(rng.uniform(0.12, 0.4, 8), [0.25, 0.5, 0.25], "valid")
    heights = np.linspace(0.0, rng.uniform(0.6, 1.1), 6)
    parts = [revolve([(0, 0), *wall(list(zip(widths.tolist(), heights.tolist(), strict=True)), 0.03)], VESSEL)]
    return parts + (_leaves(rng, heights[-1]) if rng.random() < 0.5 else [])


def glass(rng: Rng) -> Thing:
    """Return a glass with a stem."""
    foot, stem, width = rng.uniform(0.2, 0.3), rng.uniform(0.2, 0.45), rng.uniform(0.2, 0.32)
    outside = [(0.03, stem), (width * 0.8, stem + 0.12), (width, stem + 0.3), (width * 0.85, stem + 0.55)]
    return [revolve([(0, 0), (foot, 0), (foot, 0.02), (0.03, 0.06), *wall(outside, 0.02)], ("glass", "glass", "metal"))]


def can(rng: Rng) -> Thing:
    """Return a can or a jar with a lid."""
    radius, height, lid = rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.9), rng.uniform(0.02, 0.12)
    body = revolve([(0, 0), (radius, 0), (radius, height), (0, height)], SOLID, smooth=False)
    cover = [(0, height), (radius * 1.03, height), (radius * 1.03, height + lid), (0, height + lid)]
    return [body, revolve(cover, ("metal", "plastic", "wood"), smooth=False)]


def fruit(rng: Rng) -> Thing:
    """Return a fruit with a stalk, or a stone."""
    high = rng.uniform(0.35, 0.5)
    parts = [ball((0, 0, high * 0.95), (rng.uniform(0.35, 0.5), 0.42, high), NATURAL, rng)]
    if rng.random() < 0.7:
        parts.append(
            tube(arc((0, 0, high * 1.8), (0.08, 0, high * 2.3), (0.03, 0, 0), 5), np.full(5, 0.025), ("wood",))
        )
    return parts


def banana(rng: Rng) -> Thing:
    """Return a bent, thick tube with thin ends."""
    path = arc((-0.5, 0, 0.12), (0.5, 0, 0.12), (0, rng.uniform(0.1, 0.35), 0), 11)
    return [tube(path, 0.11 * np.sin(np.linspace(0.25, np.pi - 0.15, 11)) ** 0.6, (*NATURAL, "plastic"))]


def spoon(rng: Rng) -> Thing:
    """Return a spoon: a shallow bowl and a handle."""
    length = rng.uniform(0.9, 1.3)
    head = ball((0, 0, 0.06), (0.22, 0.15, 0.04), ("metal", "metal", "wood", "plastic"))
    path = arc((0.2, 0, 0.07), (0.2 + length, 0, 0.04), (0, 0, rng.uniform(0.02, 0.1)))
    return [head, tube(path, np.linspace(0.025, 0.06, 9), flat=0.4)]


def pen(rng: Rng) -> Thing:
    """Return a pen with a tip and an end."""
    thick = rng.uniform(0.02, 0.05)
    ends = ((-0.5, 0.4), (0.4, 0.52), (-0.56, -0.5))
    shaft, tip, cap = (arc((a, 0, thick), (b, 0, thick), (0, 0, 0), 3) for a, b in ends)
    return [
        tube(shaft, np.full(3, thick), ("plastic", "wood", "metal")),
        tube(tip, thick * np.array([1, 0.6, 0.1]), ("wood", "metal", "plastic")),
        tube(cap, np.full(3, thick), ("plastic", "metal")),
    ]


def book(rng: Rng) -> Thing:
    """Return a book: a cover and its pages."""
    width, depth, height = 0.5, rng.uniform(0.3, 0.5), rng.uniform(0.05, 0.2)
    cover = ("photograph", "cloth", "plastic")
    pages = box((-width + 0.02, -depth + 0.02, 0.01), (width + 0.005, depth - 0.02, height - 0.01), ("paper",))
    sheets = [box((-width, -depth, z), (width, depth, z + 0.012)) for z in (0.0, height - 0.012)]
    spine = box((-width - 0.01, -depth, 0), (-width + 0.01, depth, height), cover)
    return [spine, *sheets, pages]


def carton(rng: Rng) -> Thing:
    """Return a box, often with a ribbon or a lid."""
    x, y, z = rng.uniform(0.2, 0.5, 3)
    parts = [box((-x, -y, 0), (x, y, 2 * z), SOLID)]
    if rng.random() < 0.5:
        at = rng.uniform(0.3, 0.9)
        parts.append(box((-x - 0.01, -y - 0.01, 2 * z * at), (x + 0.01, y + 0.01, 2 * z + 0.02), SOLID))
    return parts


def ring(rng: Rng) -> Thing:
    """Return a ring or a doughnut."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    thick = rng.uniform(0.04, 0.2)
    path = np.stack([0.4 * np.cos(angles), 0.4 * np.sin(angles), np.full(24, thick)], 1)
    return [tube(path, np.full(24, thick), (*SOLID, "skin"), loop=True)]


def coin(rng: Rng) -> Thing:
    """Return a disc."""
    height = rng.uniform(0.04, 0.1)
    return [revolve([(0, 0), (0.5, 0), (0.5, height), (0, height)], ("metal", "plastic", "wood", "skin"), smooth=False)]


def animal(rng: Rng) -> Thing:
    """Return an animal of ellipsoids: body, head, ears, four legs and a tail."""
    long, tall, thick = rng.uniform(0.4, 0.6), rng.uniform(0.15, 0.6), rng.uniform(0.16, 0.28)
    back = tall + thick
    coat = [ball((0, 0, back), (long, thick, thick), COAT, rng)]
    head = np.array([long * 1.1, 0, back + rng.uniform(0.0, 0.45)])
    size = rng.uniform(0.13, 0.22)
    coat.append(tube(arc((long * 0.7, 0, back), head, (0, 0, 0.02), 5), np.linspace(thick * 0.7, size * 0.6, 5)))
    coat.append(ball(head, (size * 1.2, size, size)))
    nose = head + np.array([size * 1.2, 0, -size * 0.3])
    coat.append(ball(nose, (size * 0.6, size * 0.5, size * 0.4)))
    for side in (-1, 1):
        ear = head + np.array([-size * 0.4, side * size * 0.7, size])
        coat.append(ball(ear, (size * 0.2, size * 0.3, size * rng.uniform(0.3, 0.9))))
        for x in (-long * 0.7, long * 0.65):
            hip, foot = (x, side * thick * 0.6, back), (x + rng.normal(0, 0.08), side * thick * 0.6, 0)
            coat.append(tube(arc(hip, foot, (0, 0, 0), 5), np.linspace(thick * 0.45, thick * 0.25, 5)))
    end = (-long - rng.uniform(0.1, 0.4), rng.normal(0, 0.1), back + rng.normal(0, 0.2))
    coat.append(tube(arc((-long * 0.9, 0, back), end, (0, 0, 0.05), 6), np.linspace(thick * 0.3, 0.03, 6)))
    return coat


def chair(rng: Rng) -> Thing:
    """Return a chair, a stool or a table."""
    wide, high, thick, leg = rng.uniform(0.3, 0.5), rng.uniform(0.35, 0.7), 0.06, rng.uniform(0.025, 0.05)
    parts = [box((-wide, -0.35, high), (wide, 0.35, high + thick), ("wood", "plastic", "cloth", "metal"))]
    for x in (-wide + leg, wide - leg):
        for y in (-0.35 + leg, 0.35 - leg):
            parts.append(box((x - leg, y - leg, 0), (x + leg, y + leg, high)))
    if rng.random() < 0.6:
        parts.append(box((-wide, 0.3, high), (wide, 0.35, high + rng.uniform(0.3, 0.7)), ("wood", "cloth", "plastic")))
    return parts


def lamp(rng: Rng) -> Thing:
    """Return a lamp: a foot, a pole and a shade."""
    high, low_width, top_width = rng.uniform(0.6, 1.1), rng.uniform(0.25, 0.45), rng.uniform(0.1, 0.25)
    pole = [(0, 0), (0.2, 0), (0.2, 0.03), (0.03, 0.06), (0.03, high), (0, high)]
    shade = [(low_width, high - 0.1), (top_width, high + 0.25)]
    return [revolve(pole, ("metal", "ceramic", "wood")), revolve(shade, ("cloth", "paper", "plastic"), smooth=False)]


def plant(rng: Rng) -> Thing:
    """Return a pot with leaves."""
    top, high = rng.uniform(0.2, 0.35), rng.uniform(0.25, 0.45)
    pot = revolve([(0, 0), *wall([(top * 0.7, 0.0), (top, high), (top * 1.05, high + 0.02)], 0.03)], VESSEL)
    return [pot, *_leaves(rng, high)]


def car(rng: Rng) -> Thing:
    """Return a toy car: a body, a cabin and four wheels."""
    long, wide, low = rng.uniform(0.45, 0.6), rng.uniform(0.2, 0.28), 0.1
    waist = low + rng.uniform(0.15, 0.25)
    body = box((-long, -wide, low), (long, wide, waist), ("paint", "plastic", "metal"))
    cabin = box(
        (-long * 0.6, -wide * 0.9, waist), (long * rng.uniform(0.2, 0.5), wide * 0.9, waist + 0.2), ("glass", "paint")
    )
    parts = [body, cabin]
    for x in (-long * 0.6, long * 0.6):
        for y in (-wide, wide):
            path = np.array([[x, y - 0.04, 0.11], [x, y, 0.11], [x, y + 0.04, 0.11]])
            parts.append(tube(path, np.full(3, 0.11), ("rubber",)))
    return parts


def _leaves(rng: Rng, base: float) -> Thing:
    leaves: Thing = []
    for turn in rng.uniform(0, 2 * np.pi, int(rng.integers(4, 12))):
        reach, rise = rng.uniform(0.15, 0.5), rng.uniform(0.2, 0.7)
        end = (reach * np.cos(turn), reach * np.sin(turn), base + rise)
        width = 0.02 + 0.06 * np.sin(np.linspace(0, np.pi, 7)) * rng.uniform(0.5, 1.5)
        leaves.append(tube(arc((0, 0, base - 0.1), end, (0, 0, rng.uniform(0, 0.2)), 7), width, ("leaf",), flat=0.15))
    return leaves


THINGS: tuple[Callable[[Rng], Thing], ...] = (
    cup,
    bowl,
    bottle,
    vase,
    glass,
    can,
    fruit,
    banana,
    spoon,
    pen,
    book,
    carton,
    ring,
    coin,
    animal,
    chair,
    lamp,
    plant,
    car,
)


def random_thing(rng: Rng) -> Thing:
    """Return a random thing. Animals are three times as frequent as each other kind."""
    weights = np.array([3.0 if make is animal else 1.0 for make in THINGS])
    return THINGS[int(rng.choice(len(THINGS), p=weights / weights.sum()))](rng)
