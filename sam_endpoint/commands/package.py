"""Save a SAM checkpoint as an MLflow model, log it and register it.

Examples:
  sam-endpoint package
  sam-endpoint package --checkpoint facebook/sam-vit-large --output build/sam-vit-large --register sam --alias champion
  sam-endpoint package --config '{"mask_encoding": "rle"}' --no-log
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sam_endpoint.commands import CommandError, UsageError, json_object
from sam_endpoint.scoring.process import configure_process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        help="Hugging Face id, folder, or one of Meta's .pt and .pth files (default: the embedded sam-tiny)",
    )
    parser.add_argument("--output", type=Path, default=Path("build/model"), help="model folder (default: %(default)s)")
    parser.add_argument(
        "--config", type=json_object, default={}, help="settings of the deployment, as a JSON object (model_config)"
    )
    parser.add_argument("--register", metavar="NAME", help="register the model under this name")
    parser.add_argument("--alias", help="alias of the registered version; needs --register")
    parser.add_argument("--no-log", action="store_true", help="save the model only; log to no tracking server")


def run(options: argparse.Namespace) -> int:
    if options.alias and not options.register:
        raise UsageError("--alias needs --register")
    if options.register and options.no_log:
        raise UsageError("--register needs the model logged: leave out --no-log")
    configure_process()

    import mlflow
    from mlflow.exceptions import MlflowException

    from sam_endpoint.model.mlflow import package

    try:
        saved = package.save(options.checkpoint or package.EMBEDDED, options.output, options.config)
        print(f"saved       {saved}")
        if not options.no_log:
            if not os.environ.get("MLFLOW_TRACKING_URI"):
                mlflow.set_tracking_uri(package.DEFAULT_TRACKING)
            uri = package.log(saved, options.register, options.alias)
            print(f"logged      {uri}  (tracking: {mlflow.get_tracking_uri()})")
    except (ValueError, MlflowException) as error:
        raise CommandError(str(error)) from error
    print(f"serve it    mlflow models serve -m {saved} --env-manager local")
    return 0
