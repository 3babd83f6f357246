"""Segment images by prompts: the code that a saved MLflow model carries.

Modules of this package import one another relatively, because a saved model holds a copy of the package under another
name.
"""
