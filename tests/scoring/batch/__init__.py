"""Tests of batch jobs and label files."""
