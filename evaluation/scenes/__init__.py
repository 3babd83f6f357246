"""Generate scenes: synthetic images with exact masks, reproducible from a seed and an index."""

from __future__ import annotations

from sam_endpoint.evaluation.scenes.scene import LONGEST_EDGE, MIN_AREA, Scene, draw_scene

__all__ = ["LONGEST_EDGE", "MIN_AREA", "Scene", "draw_scene"]
