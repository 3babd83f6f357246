"""Train a checkpoint on drawn scenes.

Examples:
  sam-endpoint train --family sam2 --output build/sam2-tiny
  sam-endpoint train --start checkpoints/sam-tiny --output build/sam-tiny --side 352 --steps 700

A stopped training continues from its last saved state when the same command is given again, with the same result.
"""

from __future__ import annotations

import argparse

from sam_endpoint.commands import CommandError
from sam_endpoint.scoring.process import configure_process
from sam_endpoint.training.options import add_arguments, read_options

__all__ = ["add_arguments", "run"]
STOPPED = "stopped; the same command goes on from the last saved state"


def run(options: argparse.Namespace) -> int:
    configure_process()

    from sam_endpoint.training.train import train

    try:
        train(read_options(options))
    except OSError as error:
        raise CommandError(str(error)) from error
    return 0
