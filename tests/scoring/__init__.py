"""Tests of the code that opens models and reads tables for scoring."""
