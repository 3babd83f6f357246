"""The memory parts of SAM 3's tracker."""

from __future__ import annotations

from torch import Tensor

from ..sam2_video import Sam2Video


class Sam3Memory(Sam2Video):
    """The memory parts of SAM 3's tracker: those of SAM 2, with embeddings of images that have no marker.

    transformers' Sam3TrackerModel marks a fourth feature map, which it drops.
    """

    def mark(self, features: Tensor) -> Tensor:
        """Add the marker of frames without memory."""
        return features + self.marker

    def unmark(self, features: Tensor) -> Tensor:
        """Return the features, which have no marker."""
        return features
