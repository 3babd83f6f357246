"""Fine-tuning: train a model on a user's own masks, and compare the result with its base before it is promoted."""
