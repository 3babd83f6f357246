"""Generate motions: where an object is, how large it is and how it is turned at each time of a clip."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Point = NDArray[np.float64]


@dataclass
class Wave:
    """A sum of a linear change and a slow oscillation. Time runs from 0 to 1 over the clip."""

    start: float
    change: float = 0.0
    amplitude: float = 0.0
    frequency: float = 1.0
    phase: float = 0.0

    def at(self, time: float) -> float:
        """Return the value at a time."""
        oscillation = np.sin(2 * np.pi * self.frequency * time + self.phase) - np.sin(self.phase)
        return float(self.start + self.change * time + self.amplitude * oscillation)


def random_wave(rng: Rng, start: float, change: float, amplitude: float) -> Wave:
    """Return a wave whose change and amplitude are random, up to the given sizes in both directions."""
    return Wave(
        start,
        rng.uniform(-change, change),
        rng.uniform(-amplitude, amplitude),
        rng.uniform(0.4, 1.6),
        rng.uniform(0, 2 * np.pi),
    )


@dataclass
class Motion:
    """The motion of an object.

    Attributes:
        x: x coordinate of the centre in pixels.
        y: y coordinate of the centre in pixels.
        size: radius in pixels.
        angle: rotation in radians.
        stretch: factor for one axis of the object, as if it turned away from the camera.
    """

    x: Wave
    y: Wave
    size: Wave
    angle: Wave = field(default_factory=lambda: Wave(0.0))
    stretch: Wave = field(default_factory=lambda: Wave(1.0))

    def position(self, time: float) -> Point:
        """Return x and y of the centre at a time, `(2,)`."""
        return np.array([self.x.at(time), self.y.at(time)])


def wander(rng: Rng, height: int, width: int, size: float, speed: float) -> Motion:
    """Return the motion of an object that starts inside the image, moves, turns and changes its size.

    Args:
        rng: The random generator.
        height: The height of the image in pixels.
        width: The width of the image in pixels.
        size: The radius at the start in pixels.
        speed: The largest displacement over the clip, as a share of the longest edge.
    """
    reach = speed * max(height, width)
    start = np.array([rng.uniform(0.15, 0.85) * width, rng.uniform(0.15, 0.85) * height])
    goal = np.array([rng.uniform(0.05, 0.95) * width, rng.uniform(0.05, 0.95) * height]) - start
    goal *= min(1.0, reach / max(1.0, float(np.hypot(*goal))))
    sway = 0.06 * max(height, width)
    motion = Motion(
        random_wave(rng, start[0], 0, sway), random_wave(rng, start[1], 0, sway), random_wave(rng, size, 0, 0.08 * size)
    )
    motion.x.change, motion.y.change = goal
    motion.size.change = size * (np.exp(rng.uniform(-0.45, 0.45)) - 1)
    motion.angle = random_wave(rng, rng.uniform(0, 2 * np.pi), 1.6, 0.3)
    motion.stretch = Wave(1.0, 0.0, rng.uniform(0, 0.12), rng.uniform(0.3, 1.0), np.pi / 2)
    return motion


def cross(rng: Rng, other: Motion, time: float, size: float, reach: float) -> Motion:
    """Return the motion of an object that covers another object at a time.

    Args:
        rng: The random generator.
        other: The motion of the object that is covered.
        time: The time from 0 to 1 at which both centres are at the same place.
        size: The radius in pixels.
        reach: The displacement over the clip in pixels.
    """
    angle = rng.uniform(0, 2 * np.pi)
    change = reach * np.array([np.cos(angle), np.sin(angle)])
    start = other.position(time) - change * time
    motion = Motion(Wave(start[0], change[0]), Wave(start[1], change[1]), Wave(size))
    motion.angle = random_wave(rng, rng.uniform(0, 2 * np.pi), 0.6, 0.1)
    return motion


def leave_and_return(motion: Motion, height: int, width: int) -> None:
    """Change a motion so that the object leaves the image in the middle of the clip, and comes back."""
    start = motion.position(0)
    size = motion.size.start
    beyond = 1.3 * size
    exits = np.array(
        [[-beyond, start[1]], [width + beyond, start[1]], [start[0], -beyond], [start[0], height + beyond]]
    )
    nearest = exits[np.abs(exits - start).sum(1).argmin()] - start
    for wave, distance in zip((motion.x, motion.y), nearest, strict=True):
        # sin(pi t) is 0 at both ends of the clip and 1 in its middle.
        wave.change, wave.amplitude, wave.frequency, wave.phase = 0.0, distance * 1.05, 0.5, 0.0
    motion.size.change = 0.0
