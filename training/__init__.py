"""How the embedded checkpoint was made: drawn scenes, prompts, losses, training and evaluation."""
