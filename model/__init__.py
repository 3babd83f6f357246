"""The code inside the packaged MLflow model: images and prompts in, masks with scores out.

The package imports itself only relatively, because a packaged model carries a copy of it under another name.
"""
