"""Evaluate the masks of a model on synthetic scenes or on a COCO file, or compare two models.

Examples:
  sam-endpoint evaluate --model build/model --data scenes --count 20
  sam-endpoint evaluate --model build/model --data instances_val2017.json --images val2017
  sam-endpoint evaluate --model build/with-text --data instances_val2017.json --images val2017 --concepts text
  sam-endpoint evaluate --model models:/sam@champion --model build/finetuned --data mine.json --boxes results.json
"""

from __future__ import annotations

import argparse
import logging

from sam_endpoint.commands import CommandError
from sam_endpoint.evaluation.options import add_arguments, read_options
from sam_endpoint.scoring.process import configure_process

__all__ = ["add_arguments", "run"]


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    evaluation_options = read_options(options)
    configure_process()
    logging.getLogger("mlflow").setLevel(logging.ERROR)

    from mlflow.exceptions import MlflowException

    from sam_endpoint.evaluation import evaluate

    try:
        return evaluate.run(evaluation_options)
    except (MlflowException, OSError) as error:
        raise CommandError(str(error)) from error
