"""Train a checkpoint on synthetic scenes, and on photographs with masks.

Examples:
  sam-endpoint train --family sam2 --output build/sam2-tiny
  sam-endpoint train --start checkpoints/sam-tiny --output build/sam-tiny --side 352 --steps 700
  sam-endpoint train --start checkpoints/sam-tiny --output build/sam-tiny --photos photos/houses photos/animals

To continue a stopped training from its last saved state, run the same command again. The result is the same.
"""

from __future__ import annotations

import argparse

from sam_endpoint.commands import CommandError
from sam_endpoint.scoring.process import configure_process
from sam_endpoint.training.options import add_arguments, read_options

__all__ = ["add_arguments", "run"]
STOPPED = "stopped; run the same command again to continue from the last saved state"


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    configure_process()

    from sam_endpoint.training.train import train

    try:
        train(read_options(options))
    except OSError as error:
        raise CommandError(str(error)) from error
    return 0
