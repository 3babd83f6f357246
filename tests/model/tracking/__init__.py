"""Tests of tracking objects through video."""
