"""Package a SAM checkpoint as an MLflow model: save, log and register it.

Examples:
  sam-endpoint package
  sam-endpoint package --checkpoint facebook/sam-vit-large --output build/sam-vit-large --register sam --alias champion
  sam-endpoint package --checkpoint facebook/sam-vit-large --detector IDEA-Research/grounding-dino-tiny
  sam-endpoint package --config '{"mask_encoding": "rle"}' --no-log
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sam_endpoint.commands import CommandError, UsageError, json_object
from sam_endpoint.scoring.process import configure_process

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--checkpoint",
        help="Hugging Face id, folder, or one of Meta's .pt or .pth files (default: the included sam-tiny)",
    )
    parser.add_argument(
        "--detector",
        help="detector that answers input_text, packaged beside the checkpoint: Hugging Face id or folder of a "
        "Grounding DINO, an OWLv2, or a detector with a fixed set of classes",
    )
    parser.add_argument("--output", type=Path, default=Path("build/model"), help="model folder (default: %(default)s)")
    parser.add_argument(
        "--config",
        type=json_object,
        default={},
        help="settings and default params of the deployment (model_config), as a JSON object",
    )
    parser.add_argument("--register", metavar="NAME", help="register the model under this name")
    parser.add_argument("--alias", help="alias of the registered version; needs --register")
    parser.add_argument("--no-log", action="store_true", help="only save the model; do not log it to a tracking server")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if options.alias and not options.register:
        raise UsageError("--alias needs --register")
    if options.register == "" or options.alias == "":
        raise UsageError("--register and --alias: expected a name, got an empty text")
    if options.register and options.no_log:
        raise UsageError("--register needs a logged model; leave out --no-log")
    configure_process()

    import mlflow
    from mlflow.exceptions import MlflowException

    from sam_endpoint.model.errors import EndpointError
    from sam_endpoint.model.mlflow import package
    from sam_endpoint.scoring.runtime import one_line, without_password

    try:
        if not options.no_log:
            _check_tracking(package.DEFAULT_TRACKING)
        checkpoint = options.checkpoint or package.EMBEDDED
        saved = package.save(checkpoint, options.output, options.config, detector=options.detector)
        print(f"saved       {saved}")
        if not options.no_log:
            uri = package.log(saved, options.register, options.alias)
            print(f"logged      {uri}  (tracking: {without_password(mlflow.get_tracking_uri())})")
    except (CommandError, EndpointError):
        raise
    except (ValueError, OSError, MlflowException) as error:
        raise CommandError(one_line(error)) from None
    except Exception as error:  # errors of disks and tracking servers come from many libraries
        raise CommandError(f"the model cannot be packaged: {type(error).__name__}: {one_line(error)}") from None
    print(f"serve it    mlflow models serve -m {saved} --env-manager local")
    return 0


def _check_tracking(default: str) -> None:
    """Check that the tracking server responds, before the model is saved. Raises CommandError."""
    import mlflow

    from sam_endpoint.scoring.runtime import one_line, without_password

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(default)
    retries = os.environ.get(RETRIES)
    os.environ[RETRIES] = retries or "2"  # with MLflow's default, a failure takes four minutes
    try:
        mlflow.MlflowClient().search_experiments(max_results=1)
    except Exception as error:
        uri = without_password(mlflow.get_tracking_uri())
        raise CommandError(
            f"the tracking server {uri} cannot be used: {one_line(error)}; add --no-log to save without logging"
        ) from None
    finally:
        if retries is None:
            del os.environ[RETRIES]
