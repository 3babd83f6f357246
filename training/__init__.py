"""How the embedded checkpoint was made: drawn scenes, prompts, losses, training and evaluation."""

import model  # noqa: F401 - first, for it imports what everything stands on without delay
