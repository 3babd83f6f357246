"""Prompts: points, boxes and mask inputs. Each prompt selects one object in an image."""

from .parsing import parse_prompts
from .values import EMPTY_PROMPT, Prompt, PromptBatch, group_by_layout, stack

__all__ = ["EMPTY_PROMPT", "Prompt", "PromptBatch", "group_by_layout", "parse_prompts", "stack"]
