"""The state of tracking: what the model remembers of earlier frames."""

from __future__ import annotations

from pathlib import Path


class TrackState:
    """What the model remembers of earlier frames. Its size does not depend on the number of frames tracked.

    `track` updates the state after each frame, so a caller may save the state between two frames, and continue later
    with the next frame.
    """

    def save(self, path: Path) -> None:
        """Write the state to a safetensors file. An existing file is replaced."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path) -> TrackState:
        """Read a state that `save` wrote.

        Raises:
            BadData: the file cannot be read, or holds no state.
        """
        raise NotImplementedError
