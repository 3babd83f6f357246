"""Fine-tune a model on your own masks, and promote it if it is better.

Examples:
  sam-endpoint finetune --model build/model --data train.json --images photos --output build/finetuned
  sam-endpoint finetune --model models:/sam@champion --data train.json --val val.json --register sam --promote champion

The data is a COCO file, a YOLO segmentation folder, a Label Studio export, or a predictions table with corrected masks.
With --mode decoder each image is encoded once. A stopped training continues when the same command is given again, with
the same weights. Exit code 3: --promote was given, and the gate refused.
"""

from __future__ import annotations

import argparse
import logging

from sam_endpoint.commands import CommandError
from sam_endpoint.scoring.process import configure_process
from sam_endpoint.training.finetune.options import add_arguments, read_options

__all__ = ["add_arguments", "run"]
STOPPED = "stopped; the same command goes on from the last saved state"


def run(options: argparse.Namespace) -> int:
    """Fine-tune a model. Raises CommandError."""
    finetune_options = read_options(options)
    configure_process()
    logging.getLogger("mlflow").setLevel(logging.ERROR)

    from mlflow.exceptions import MlflowException

    from sam_endpoint.training.finetune.finetune import finetune

    try:
        return finetune(finetune_options)
    except (MlflowException, OSError) as error:
        raise CommandError(str(error)) from error
