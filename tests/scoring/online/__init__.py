"""Tests of the endpoint and its page."""
