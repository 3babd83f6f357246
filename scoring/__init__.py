"""Score images online and in batch jobs. This package imports `model`; `model` never imports this package."""
