"""Open MLflow models and checkpoints as an `Engine`. All commands and the endpoint open their models here."""

from __future__ import annotations

import filecmp
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sam_endpoint.model.deployment import DeploymentSettings
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadModel, EndpointError, is_out_of_memory
from sam_endpoint.model.params import ParamDefaults
from sam_endpoint.model.saved import SavedModel, open_checkpoint

logger = logging.getLogger(__name__)
STARTERS = Path(__file__).resolve().parents[1] / "checkpoints"  # the models in this package, one folder each
_URI = re.compile(r"^[a-z][a-z0-9+.-]*:/", re.IGNORECASE)
_REGISTERED = re.compile(r"^models:/[^/@]+(?:/[^/@]+|@(?P<alias>[^/@]+))$")


@dataclass(frozen=True)
class LocatedModel:
    """An MLflow model on this machine.

    Attributes:
        source: the URI or folder that the caller passed.
        folder: the local folder with the `MLmodel` file.
        registered: `registered_model`, `version` and `alias` in the model registry; empty for other sources.
    """

    source: str
    folder: Path
    registered: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenedModel:
    """A model that is ready to use.

    Attributes:
        source: the URI, folder or checkpoint that the caller passed.
        engine: embeds and segments images with the model.
        defaults: params that apply if a request does not set them.
        saved: the MLflow model; None for a checkpoint without an MLflow model.
        registered: as in `LocatedModel`.
    """

    source: str
    engine: Engine
    defaults: ParamDefaults = field(default_factory=ParamDefaults)
    saved: SavedModel | None = None
    registered: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def settings(self) -> DeploymentSettings:
        """The packaged settings of the deployment; the defaults for a checkpoint without an MLflow model."""
        return self.saved.settings() if self.saved else DeploymentSettings()

    @property
    def is_starter(self) -> bool:
        """Whether the weights are those of a small model in this package, which is only meant for a first try."""
        return is_starter(self.saved.checkpoint if self.saved else Path(self.source))

    @property
    def weights(self) -> Any:
        """Value that identifies the weights.

        It is the hashes that an MLflow model got when it was packaged. For a model without them, it is the engine's
        fingerprint.
        """
        packaged = self.saved and self.saved.metadata.get("weights_sha256")
        return packaged or self.engine.fingerprint

    def describe(self) -> dict[str, Any]:
        """Return the origin of the model, for responses and logs.

        Returns:
            `source` and `family`. For an MLflow model also `packaged_by` (this project's version), `run_id` and
            `base_model`; for a registered model also `registered_model`, `version` and `alias`.
        """
        if self.saved is None:
            return {"source": self.source, "family": self.engine.family}
        return {
            "source": self.source,
            "family": self.engine.family,
            "packaged_by": self.saved.version,
            "run_id": self.saved.run_id,
            "base_model": self.saved.metadata.get("base_model"),
            **self.registered,
        }


def open_model(source: str | Path | LocatedModel, device: str | None = None, **config: Any) -> OpenedModel:
    """Open an MLflow model or a checkpoint.

    Only the weights, config, signature and metadata of an MLflow model are read. Code inside the model does not run.

    Args:
        source: URI or folder of an MLflow model; or a checkpoint: a Hugging Face id, a folder, or one of Meta's `.pt`
            and `.pth` files.
        device: torch device such as `cpu`, `cuda` or `cuda:1`; None uses the setting of the model.
        **config: settings of this deployment, and params that apply if a request does not set them. The names are those
            of MLflow's `model_config`.

    Returns:
        The model, ready to embed and segment images.

    Raises:
        BadModel: the model does not exist or cannot be used; the message has the reason.
        BadParameter: a setting or param has an unknown name or a value out of range.

    Example:
        >>> model = open_model(STARTERS / "sam-tiny", device="cpu")
        >>> model.engine.family, model.is_starter
        ('sam', True)
    """
    if device:
        config["device"] = device
    name = source.source if isinstance(source, LocatedModel) else str(source)
    try:
        if isinstance(source, LocatedModel) or is_mlflow_model(name):
            located = source if isinstance(source, LocatedModel) else locate(name)
            saved = SavedModel.read(located.folder)
            engine, defaults = saved.open(config)
            logger.info("model %s was packaged by version %s", name, saved.version)
            return OpenedModel(name, engine, defaults, saved, located.registered)
        return _open_checkpoint(name, config)
    except EndpointError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise BadModel(f"no model can be loaded from '{name}': {one_line(error)}") from None


def is_mlflow_model(source: str) -> bool:
    """Return whether a source is an MLflow model, that is, a URI or a folder with an `MLmodel` file."""
    return bool(_URI.match(source)) or (Path(source) / "MLmodel").exists()


def is_starter(checkpoint: Path) -> bool:
    """Return whether a checkpoint folder holds the weights of one of the models in this package."""
    weights = checkpoint / "model.safetensors"
    starters = STARTERS.glob("*/model.safetensors")
    return weights.is_file() and any(filecmp.cmp(weights, starter, shallow=False) for starter in starters)


def locate(source: str) -> LocatedModel:
    """Find an MLflow model on this machine, and download it if necessary.

    An alias or `latest` is first resolved to a version number, so that the reported version is the downloaded version.

    Args:
        source: URI or folder of an MLflow model.

    Returns:
        The model's local folder, and its entry in the registry if it has one.

    Raises:
        BadModel: the model cannot be downloaded.
    """
    if not _URI.match(source):
        return LocatedModel(source, Path(source).resolve())  # MLflow rejects models behind symbolic links
    from mlflow.artifacts import download_artifacts

    registered = registered_version(source)
    uri = f"models:/{registered['registered_model']}/{registered['version']}" if registered else source
    try:
        return LocatedModel(source, Path(download_artifacts(uri)), registered)
    except Exception as error:  # the libraries of stores and registries raise errors of their own
        raise BadModel(f"no model can be loaded from '{source}': {one_line(error)}") from None


def registered_version(source: str) -> dict[str, str | None]:
    """Ask the registry to which version of a registered model a URI refers now. Nothing is downloaded.

    Args:
        source: a URI such as `models:/sam@champion`, `models:/sam/latest` or `models:/sam/3`, or any other source.

    Returns:
        `registered_model`, `version` and `alias`, which is None for a URI without alias. For any other source, {}.

    Raises:
        BadModel: the registry cannot be reached, or has no such model, version or alias.
    """
    match = _REGISTERED.match(source)
    if match is None:
        return {}
    from mlflow import MlflowClient
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    try:
        model, version = get_model_name_and_version(MlflowClient(), source)
    except Exception as error:  # the libraries of registries raise errors of their own
        raise BadModel(f"no model can be loaded from '{source}': {one_line(error)}") from None
    return {"registered_model": model, "version": str(version), "alias": match["alias"]}


def download(source: str) -> Path:
    """Return the local folder of an MLflow model. Downloads the model and raises BadModel as `locate` does."""
    return locate(source).folder


def one_line(error: BaseException) -> str:
    """Return the first line of an exception's message, without user names and passwords of URLs.

    If the exception has no message, return the name of its type.
    """
    return without_password((str(error).strip() or type(error).__name__).splitlines()[0])


def without_password(text: str) -> str:
    """Remove user names and passwords from the URLs in a text.

    Example:
        >>> without_password("cannot reach https://user:password@host/mlflow")
        'cannot reach https://host/mlflow'
    """
    return re.sub(r"//[^/@\s]*@", "//", text)


def _open_checkpoint(source: str, config: Mapping[str, Any]) -> OpenedModel:
    return OpenedModel(source, *open_checkpoint(source, config))
