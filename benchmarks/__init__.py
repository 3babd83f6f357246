"""Benchmarks: time and memory of this project, compared with plain transformers and with a lower bound."""
