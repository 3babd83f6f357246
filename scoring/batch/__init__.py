"""Batch jobs: tables of images and prompts in, tables of masks out."""
