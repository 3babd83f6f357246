"""Package a checkpoint as an MLflow model: save, log and register it."""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from PIL import Image, ImageDraw

from .. import families
from ..concepts.capabilities import capabilities
from ..concepts.detector import load as load_detector
from ..deployment import DeploymentSettings, full_config
from ..errors import BadModel, BadParameter, kind
from ..params import PARAM_NAMES, TASK, Params, checkpoint_params
from ..precision import EXACT, PRECISIONS
from ..saved import FORMAT, weights_sha256
from ..version import VERSION
from .signature import signature

PACKAGE = Path(__file__).resolve().parents[1]  # the package `model`, which is copied into the MLflow model
REQUIREMENTS = PACKAGE / "requirements.txt"
EMBEDDED, EMBEDDED_SAM2 = (PACKAGE.parent / "checkpoints" / name for name in ("sam-tiny", "sam2-tiny"))
DEFAULT_OUTPUT = Path("build") / "model"
DEFAULT_TRACKING = "sqlite:///mlflow.db"
LOADER = "loader.py"
LOADER_TEXT = '''"""Set the MLflow model. The name of the imported package holds its version and a hash of its code."""

from mlflow.models import set_model
from {package}.mlflow.pyfunc import SegmentAnything

set_model(SegmentAnything())
'''


def save(
    checkpoint: str | Path,
    output: Path,
    model_config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    detector: str | Path | None = None,
) -> Path:
    """Save a checkpoint as an MLflow model in a folder.

    An existing MLflow model in the folder is replaced. If saving fails, the folder stays unchanged.

    Args:
        checkpoint: a Hugging Face id, a checkpoint folder, or one of Meta's `.pt` or `.pth` files.
        output: the folder to write.
        model_config: settings by name, as in `deployment.DeploymentSettings`, and default params by name, as in
            `params.Params`.
        metadata: further MLflow metadata, such as another `base_model` than the name of the checkpoint.
        detector: a detector that finds objects by text: a Hugging Face id or a checkpoint folder for transformers, such
            as Grounding DINO, OWLv2, or a detector with a fixed set of classes. The default of `concept_thresh` becomes
            the usual threshold of the detector.

    Returns:
        The folder.

    Raises:
        BadModel: the folder holds files that are not an MLflow model.
        BadParameter: a setting or a param is unknown, or its value has the wrong type or is out of range.
        ValueError: the checkpoint or the detector cannot be loaded.

    Example:
        Save the starter checkpoint, and let masks be run lengths by default:

        >>> save(EMBEDDED, Path("build/model"), {"mask_encoding": "rle"})  # doctest: +SKIP
        PosixPath('build/model')
    """
    check_settings(full_config(model_config or {}))
    check_output(output)
    family = families.load(str(checkpoint))
    finder = None if detector is None else load_detector(str(detector))
    usual = {} if finder is None else {"concept_thresh": finder.usual_threshold}
    config = full_config({**checkpoint_params(family.model.config), **usual, **(model_config or {})})
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
        weights, saved = Path(scratch) / "checkpoint", Path(scratch) / "model"
        families.save(family, weights)
        artifacts = {"checkpoint": weights}
        if finder is not None:
            artifacts["detector"] = Path(scratch) / "detector"
            finder.save(artifacts["detector"])
        code = copy_code(Path(scratch) / "code")
        loader = Path(scratch) / LOADER
        loader.write_text(LOADER_TEXT.format(package=code.name))
        with importable(code):
            mlflow.pyfunc.save_model(
                path=saved,
                python_model=str(loader),
                code_paths=[str(code)],
                artifacts={name: str(folder) for name, folder in artifacts.items()},
                pip_requirements=[f"-r {REQUIREMENTS}", *family.requirements, *(finder.requirements if finder else ())],
                signature=signature(Params(**{name: config[name] for name in PARAM_NAMES})),
                input_example=input_example(),
                model_config=config,
                metadata={
                    "task": TASK,
                    "family": family.name,
                    "base_model": base_model_name(checkpoint),
                    **({} if detector is None else {"detector": base_model_name(detector)}),
                    "capabilities": capabilities(family, finder or family.finder),
                    "weights_sha256": weights_sha256(*artifacts.values()),
                    "packaged_by": VERSION,
                    "format": FORMAT,
                    **(metadata or {}),
                },
            )
        shutil.rmtree(output, ignore_errors=True)
        saved.rename(output)
    return output


def check_output(output: Path) -> None:
    """Raise BadModel if `save` would replace files that are not an MLflow model."""
    if output.exists() and (not output.is_dir() or (not (output / "MLmodel").exists() and any(output.iterdir()))):
        raise BadModel(f"'{output}' is not empty and is not an MLflow model; choose another --output")


def check_settings(config: Mapping[str, Any]) -> None:
    """Check the settings of a deployment. Without this check, a wrong type fails only when the model is loaded.

    Args:
        config: settings by name; absent settings get their defaults.

    Raises:
        BadParameter: a setting has the wrong type, a number is negative, or the precision is unknown.

    Example:
        >>> check_settings({"precision": "int8", "max_prompts": 100})
        >>> check_settings({"urls": 1})
        Traceback (most recent call last):
        sam_endpoint.model.errors.BadParameter: setting 'urls': expected a value such as true, got the number 1
    """
    counts = dict.fromkeys(("images_per_batch", "prompts_per_batch", "max_rows", "max_points"), 1)
    defaults = {**asdict(DeploymentSettings()), "device": "cpu", "precision": EXACT, "max_seconds": 1.0, **counts}
    for name, default in defaults.items():
        value = config.get(name, default)
        if value is None and getattr(DeploymentSettings(), name) is None:
            continue
        expected: Any = (int, float) if isinstance(default, float) else type(default)
        fits = isinstance(value, expected) and isinstance(value, bool) is isinstance(default, bool)
        if isinstance(default, list):
            fits = fits and all(isinstance(item, str) for item in value)
        elif not isinstance(default, str):
            fits = fits and value >= 0
        if name == "precision":
            fits = value in PRECISIONS
        if not fits:
            raise BadParameter(f"setting '{name}': expected a value such as {json.dumps(default)}, got {kind(value)}")


def log(saved: Path, register: str | None = None, alias: str | None = None) -> str:
    """Log a saved model in a new run of the current tracking server.

    Args:
        saved: the folder that `save` returned.
        register: name under which the model is registered; None does not register it.
        alias: alias of the registered version; needs `register`.

    Returns:
        A URI for `mlflow.pyfunc.load_model`.

    Raises:
        MlflowException: the tracking server cannot be used.
    """
    with mlflow.start_run(run_name=f"package {register or saved.name}"):
        uri, version = log_model(saved, register)
    if register is None or alias is None:
        return uri
    mlflow.MlflowClient().set_registered_model_alias(register, alias, str(version))
    return f"models:/{register}@{alias}"


def log_model(saved: Path, register: str | None = None) -> tuple[str, str | None]:
    """Log a saved model in the active run.

    Args:
        saved: folder that `save` wrote.
        register: name to register the model under.

    Returns:
        The URI to load the model by, and the registered version if there is one.
    """
    described = mlflow.models.Model.load(str(saved))
    flavor = described.flavors["python_function"]
    (code,) = (folder for folder in (saved / flavor["code"]).iterdir() if (folder / "version.py").exists())
    with importable(code):
        mlflow.set_tags({name: (described.metadata or {})[name] for name in ("task", "family", "base_model")})
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(saved / LOADER),
            code_paths=[str(code)],
            artifacts={name: str(saved / entry["path"]) for name, entry in flavor["artifacts"].items()},
            pip_requirements=str(saved / "requirements.txt"),
            signature=described.signature,
            input_example=input_example(),
            model_config=flavor["config"],
            metadata=described.metadata,
            registered_model_name=register,
        )
    if register is None:
        return str(logged.model_uri), None
    version = str(logged.registered_model_version)
    return f"models:/{register}/{version}", version


def copy_code(folder: Path) -> Path:
    """Copy this package into a folder, under a name with the version and a hash of the content.

    The name differs from a user's own modules and from other versions, so that one process can load several models.

    Args:
        folder: the folder that will contain the copy.

    Returns:
        The folder of the copy.
    """
    files = sorted(file for file in PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(PACKAGE).as_posix()}\0".encode() + file.read_bytes())
    copy = folder / f"sam_endpoint_model_{VERSION.replace('.', '_')}_{digest.hexdigest()[:12]}"
    for file in files:
        target = copy / file.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return copy


@contextmanager
def importable(package: Path) -> Iterator[None]:
    """Make a package importable inside a block, and unload it afterwards. MLflow imports a model's code to check it.

    Args:
        package: the folder of the package.
    """
    sys.path.insert(0, str(package.parent))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(package.parent))
        for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
            del sys.modules[name]


def input_example() -> pd.DataFrame:
    """Return a table with one row: an image of a disc on a plain background, and a box around the disc.

    Example:
        >>> input_example()["input_boxes"].tolist()
        ['[[28, 12, 68, 52]]']
    """
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


def base_model_name(checkpoint: str | Path) -> str:
    """Return a Hugging Face id unchanged. Of a path, return only the last part: other machines lack the folders."""
    return Path(checkpoint).resolve().name if Path(checkpoint).exists() else str(checkpoint)
