"""Draw clips: short synthetic videos with exact masks, reproducible from a seed and an index."""

from __future__ import annotations

from sam_endpoint.evaluation.clips.clip import HELD_OUT_SEED, Clip, draw_clip

__all__ = ["HELD_OUT_SEED", "Clip", "draw_clip"]
