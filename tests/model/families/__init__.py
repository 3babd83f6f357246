"""Tests of the model families and of their fast layers."""
