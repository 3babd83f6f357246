"""Evaluate a model's masks against ground truth: metrics, reports and images."""
