"""Serve Segment Anything models behind an MLflow endpoint: segment images by prompts."""

from sam_endpoint.model.version import VERSION

__version__ = VERSION
