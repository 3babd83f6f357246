"""All that travels inside the MLflow model: a row with an image and prompts goes in, masks with scores come out."""
