"""Tests of the notebooks and their shell scripts."""
