"""Training of small SAM and SAM 2 checkpoints on synthetic scenes and photographs."""
