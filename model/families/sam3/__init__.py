"""The SAM 3 family (2025): concepts by text and by example, and SAM 2's prompts, on one vision transformer."""

from .family import Sam3, Sam3Detector, Sam3LiteText

__all__ = ["Sam3", "Sam3Detector", "Sam3LiteText"]
