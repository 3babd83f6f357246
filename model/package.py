"""A checkpoint in, an MLflow model out: save, log, register.

python -m model.package --checkpoint facebook/sam-vit-large --output build/sam-vit-large --register sam --alias champion
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from PIL import Image, ImageDraw

from model import families
from model.contract import PARAM_NAMES, Params, signature
from model.errors import BadParameter
from model.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements.txt"
EMBEDDED, EMBEDDED_SAM2 = (ROOT / "checkpoints" / name for name in ("sam-tiny", "sam2-tiny"))
DEFAULT_OUTPUT = Path("build") / "model"
DEFAULT_TRACKING = "sqlite:///mlflow.db"


def save(checkpoint: str | Path, output: Path, model_config: Mapping[str, Any] | None = None) -> Path:
    """Saves a checkpoint (Hugging Face id, folder or one of Meta's files) as an MLflow model in the folder `output`.

    model_config: settings of `model.settings.Settings` and other defaults for the params. An MLflow model that is in
    `output` already is replaced; nothing half-written is left there. Raises ValueError for a checkpoint that is not
    supported, a setting that is unknown, or an `output` that holds something else.
    """
    config = _full_config(model_config or {})
    if output.exists() and not (output / "MLmodel").exists() and any(output.iterdir()):
        raise ValueError(f"'{output}' is not empty and is not an MLflow model; choose another --output")
    family = families.load(str(checkpoint))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
        weights, saved = Path(scratch) / "checkpoint", Path(scratch) / "model"
        families.save(family, weights)
        mlflow.pyfunc.save_model(
            path=saved,
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            code_paths=[str(Path(__file__).parent)],
            artifacts={"checkpoint": str(weights)},
            pip_requirements=[f"-r {REQUIREMENTS}", *family.requirements],
            signature=signature(Params(**{name: config[name] for name in PARAM_NAMES})),
            input_example=input_example(),
            model_config=config,
            metadata={
                "task": "mask-generation",
                "family": family.name,
                "base_model": _base_model(checkpoint),
                "weights_sha256": families.hashes(weights),
            },
        )
        shutil.rmtree(output, ignore_errors=True)
        saved.rename(output)
    return output


def log(saved: Path, register: str | None = None, alias: str | None = None) -> str:
    """Logs a saved model in a new run of the tracking server in use; registers it and names its version by `alias`.

    Returns the URI to load it by.
    """
    described = mlflow.models.Model.load(str(saved))
    flavor = described.flavors["python_function"]
    with mlflow.start_run(run_name=f"package {register or saved.name}"):
        mlflow.set_tags({name: (described.metadata or {})[name] for name in ("task", "family", "base_model")})
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(saved / "pyfunc.py"),
            code_paths=[str(saved / flavor["code"] / "model")],
            artifacts={name: str(saved / entry["path"]) for name, entry in flavor["artifacts"].items()},
            pip_requirements=str(saved / "requirements.txt"),
            signature=described.signature,
            input_example=input_example(),
            model_config=flavor["config"],
            metadata=described.metadata,
            registered_model_name=register,
        )
    if register is None:
        return logged.model_uri
    if alias is None:
        return f"models:/{register}/{logged.registered_model_version}"
    mlflow.MlflowClient().set_registered_model_alias(register, alias, logged.registered_model_version)
    return f"models:/{register}@{alias}"


def input_example() -> pd.DataFrame:
    """One row: a disc on a plain ground, and the box around it."""
    picture = Image.new("RGB", (96, 64), (205, 200, 190))
    ImageDraw.Draw(picture).ellipse((30, 14, 66, 50), fill=(60, 90, 160))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return pd.DataFrame(
        {
            "image": [base64.b64encode(buffer.getvalue()).decode("ascii")],
            "input_points": [""],
            "input_boxes": ["[[28, 12, 68, 52]]"],
            "input_labels": [""],
            "multimask_output": [False],
        }
    )


def _full_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting and param, since MLflow lets a deployment override only keys that were saved."""
    known = {**asdict(Settings()), **asdict(Params())}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"unknown setting '{unknown[0]}'; known are {', '.join(known)}")
    config = {**known, **given}
    Params.read({name: config[name] for name in PARAM_NAMES})
    return config


def _base_model(checkpoint: str | Path) -> str:
    """The hub id as it came; of a folder or file only its name, since a path means nothing elsewhere."""
    return Path(checkpoint).resolve().name if Path(checkpoint).exists() else str(checkpoint)


def json_object(text: str) -> dict[str, Any]:
    """A command line's JSON object, for argparse."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'expected a JSON object such as \'{{"mask_encoding": "rle"}}\', got {text!r}')
    return value


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m model.package", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint",
        default=str(EMBEDDED),
        help="Hugging Face id, folder, or one of Meta's .pt and .pth files (default: embedded sam-tiny)",
    )
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder to save in (default: %(default)s)")
    parser.add_argument(
        "--config", type=json_object, default={}, help='model_config as JSON, e.g. \'{"mask_encoding": "rle"}\''
    )
    parser.add_argument("--register", metavar="NAME", help="register the model under this name")
    parser.add_argument("--alias", help="alias of the registered version (needs --register)")
    parser.add_argument("--no-log", action="store_true", help="only save, log to no tracking server")
    chosen = parser.parse_args(arguments)
    if chosen.alias and not chosen.register:
        parser.error("--alias needs --register")
    if chosen.register and chosen.no_log:
        parser.error("--register needs the model logged: leave out --no-log")
    try:
        saved = save(chosen.checkpoint, chosen.output, chosen.config)
        print(f"saved       {saved}")
        if not chosen.no_log:
            if not os.environ.get("MLFLOW_TRACKING_URI"):
                mlflow.set_tracking_uri(DEFAULT_TRACKING)
            print(f"logged      {log(saved, chosen.register, chosen.alias)}  (tracking: {mlflow.get_tracking_uri()})")
    except (ValueError, BadParameter, MlflowException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"serve it    mlflow models serve -m {saved} --env-manager local")
    return 0


if __name__ == "__main__":
    sys.exit(main())
