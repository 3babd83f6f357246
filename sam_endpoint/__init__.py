"""Segment Anything behind an MLflow endpoint: images and prompts in, masks with scores out."""

from sam_endpoint.model.version import VERSION

__version__ = VERSION
