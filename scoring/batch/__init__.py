"""Batch jobs: score tables of images and prompts, or annotate folders of images."""
