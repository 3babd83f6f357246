"""Evaluate concepts: how well a model finds every object that a text or an example describes."""
