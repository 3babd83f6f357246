"""Fine-tuning: train a model on a user's masks, and compare the new model with the base model before a promotion."""
