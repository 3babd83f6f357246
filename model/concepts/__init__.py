"""Concept prompts: find every instance of what a text or examples describe."""

from .finder import ConceptFinder
from .values import Concept, Instances, Thresholds

__all__ = ["Concept", "ConceptFinder", "Instances", "Thresholds"]
