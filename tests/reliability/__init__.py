"""Tests of reliability, privacy and robustness."""
