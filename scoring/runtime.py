"""The one place that opens models: a model URI or a checkpoint becomes an Engine that runs this project's own code."""

from __future__ import annotations

import filecmp
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sam_endpoint.model.deployment import split_config
from sam_endpoint.model.embeddings import EmbeddingCache
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadModel, EndpointError, is_out_of_memory
from sam_endpoint.model.images import ImageReader
from sam_endpoint.model.params import ParamDefaults
from sam_endpoint.model.saved import SavedModel
from sam_endpoint.model.segmenter import Segmenter

logger = logging.getLogger(__name__)
STARTERS = Path(__file__).resolve().parents[1] / "checkpoints"  # the embedded models, a folder each
_URI = re.compile(r"^[a-z][a-z0-9+.-]*:/", re.IGNORECASE)
_REGISTERED = re.compile(r"^models:/[^/@]+(?:/[^/@]+|@(?P<alias>[^/@]+))$")


@dataclass(frozen=True)
class LocatedModel:
    """An MLflow model on this machine.

    Attributes:
        source: the URI or folder that was asked for.
        folder: the local folder with the `MLmodel` file.
        registered: name, version and alias in the model registry; empty for other sources.
    """

    source: str
    folder: Path
    registered: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenedModel:
    """A model that is ready to use.

    Attributes:
        source: the URI, folder or checkpoint it was opened from.
        engine: embeds and segments images with it.
        defaults: the deployment's default params.
        saved: the MLflow model it was read from, or None for a bare checkpoint.
        registered: as in LocatedModel.
    """

    source: str
    engine: Engine
    defaults: ParamDefaults = field(default_factory=ParamDefaults)
    saved: SavedModel | None = None
    registered: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def is_starter(self) -> bool:
        """Whether the weights are those of an embedded model, which is for trying things out."""
        return is_starter(self.saved.checkpoint if self.saved else Path(self.source))

    @property
    def weights(self) -> Any:
        """What tells these weights from all others: the hashes that were packaged, or a fingerprint."""
        packaged = self.saved and self.saved.metadata.get("weights_sha256")
        return packaged or self.engine.fingerprint

    def describe(self) -> dict[str, Any]:
        """Return where the model came from: its source, the version that packaged it, its run and base model.

        A registered model also has `registered_model`, `version` and `alias`.
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
    """Open an MLflow model (URI or folder) or a checkpoint (Hugging Face id, folder, or one of Meta's files).

    An MLflow model is read as data: its weights, config, signature and metadata. Code inside it does not run.

    Args:
        source: the model.
        device: `cpu`, `cuda`, `cuda:1`; by default the model's own setting.
        **config: settings and default params of this deployment, as in `model_config`.

    Raises:
        BadModel: there is no such model, or it cannot be used; the message says why.
        BadParameter: a setting or param is unknown or out of range.
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
    """Return whether a source names an MLflow model: a URI, or a folder with an `MLmodel` file."""
    return bool(_URI.match(source)) or (Path(source) / "MLmodel").exists()


def is_starter(checkpoint: Path) -> bool:
    """Return whether a checkpoint folder holds the weights of one of the embedded models."""
    weights = checkpoint / "model.safetensors"
    starters = STARTERS.glob("*/model.safetensors")
    return weights.is_file() and any(filecmp.cmp(weights, starter, shallow=False) for starter in starters)


def locate(source: str) -> LocatedModel:
    """Return an MLflow model on this machine, downloading it if necessary.

    An alias or `latest` is resolved first, so that the version reported is the version downloaded. Raises BadModel.
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
    """Return the version of a registered model that a URI stands for at present; nothing is downloaded.

    Args:
        source: a URI such as `models:/sam@champion`, `models:/sam/latest` or `models:/sam/3`, or any other source.

    Returns:
        `registered_model`, `version` and `alias` (None for a URI without one); {} for a source of another kind.

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
    except Exception as error:  # as above
        raise BadModel(f"no model can be loaded from '{source}': {one_line(error)}") from None
    return {"registered_model": model, "version": str(version), "alias": match["alias"]}


def download(source: str) -> Path:
    """Return the local folder of an MLflow model, as `locate`."""
    return locate(source).folder


def one_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or its type if it has no text; passwords in URLs are left out."""
    return without_password((str(error).strip() or type(error).__name__).splitlines()[0])


def without_password(text: str) -> str:
    """Return a text whose URLs have lost their user names and passwords."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _open_checkpoint(source: str, config: Mapping[str, Any]) -> OpenedModel:
    settings, deployed = split_config(config)
    segmenter = Segmenter.load(
        source,
        settings.device,
        settings.precision,
        images_per_batch=settings.images_per_batch,
        prompts_per_batch=settings.prompts_per_batch,
    )
    cache = EmbeddingCache(settings.cache_bytes)
    engine = Engine(segmenter, ImageReader(settings.limits), cache, settings.max_prompts)
    return OpenedModel(source, engine, ParamDefaults(deployed=deployed))
