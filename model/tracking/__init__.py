"""Track objects through the frames of a video: prompts on any frame, and the object's mask in every frame."""

from .state import TrackState
from .values import TrackedFrame, TrackedObject, TrackPrompt

__all__ = ["TrackPrompt", "TrackState", "TrackedFrame", "TrackedObject"]
