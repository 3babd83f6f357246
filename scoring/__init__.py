"""The ways in: the online endpoint and batch jobs. Imports `model`, which never imports this."""

import model  # noqa: F401 - first, for it imports what everything stands on without delay
