"""Read images: resolve references, fetch URLs, check limits, and decode files to RGB arrays."""

from .decoding import decode
from .limits import ImageLimits
from .reader import ImageReader, ImageRef, ImageSource, OpenedImage

__all__ = ["ImageLimits", "ImageReader", "ImageRef", "ImageSource", "OpenedImage", "decode"]
