"""Images: references to them, limits, fetching, and decoding to RGB arrays."""

from .decoding import decode
from .limits import ImageLimits
from .reader import ImageReader, ImageRef, ImageSource, OpenedImage

__all__ = ["ImageLimits", "ImageReader", "ImageRef", "ImageSource", "OpenedImage", "decode"]
