"""The ways in: the online endpoint and batch jobs. Imports `model`, which never imports this package."""
