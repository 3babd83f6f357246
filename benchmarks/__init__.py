"""How long the project's work takes, compared with plain transformers and with the limits of the machine."""
