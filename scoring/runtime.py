"""The one place that opens models: a model URI or a checkpoint becomes an Engine that runs this project's own code."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sam_endpoint.model.deployment import split_config
from sam_endpoint.model.embeddings import EmbeddingCache
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadModel, EndpointError
from sam_endpoint.model.images import ImageReader
from sam_endpoint.model.params import ParamDefaults
from sam_endpoint.model.saved import SavedModel
from sam_endpoint.model.segmenter import Segmenter

logger = logging.getLogger(__name__)
_URI = re.compile(r"^[a-z][a-z0-9+.-]*:/", re.IGNORECASE)


@dataclass(frozen=True)
class OpenedModel:
    """A model that is ready to use.

    Attributes:
        source: the URI, folder or checkpoint it was opened from.
        engine: embeds and segments images with it.
        defaults: the deployment's default params.
        saved: the MLflow model it was read from, or None for a bare checkpoint.
    """

    source: str
    engine: Engine
    defaults: ParamDefaults = field(default_factory=ParamDefaults)
    saved: SavedModel | None = None

    @property
    def weights(self) -> Any:
        """What tells these weights from all others: the hashes that were packaged, or a fingerprint."""
        packaged = self.saved and self.saved.metadata.get("weights_sha256")
        return packaged or self.engine.fingerprint

    def describe(self) -> dict[str, Any]:
        """Return where the model came from: its source, the version that packaged it, its run and base model."""
        if self.saved is None:
            return {"source": self.source, "family": self.engine.family}
        return {
            "source": self.source,
            "family": self.engine.family,
            "packaged_by": self.saved.version,
            "run_id": self.saved.run_id,
            "base_model": self.saved.metadata.get("base_model"),
        }


def open_model(source: str | Path, device: str | None = None, **config: Any) -> OpenedModel:
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
    source = str(source)
    if device:
        config["device"] = device
    try:
        if is_mlflow_model(source):
            saved = SavedModel.read(download(source))
            engine, defaults = saved.open(config)
            logger.info("model %s was packaged by version %s", source, saved.version)
            return OpenedModel(source, engine, defaults, saved)
        return _open_checkpoint(source, config)
    except EndpointError:
        raise
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadModel(f"no model can be loaded from '{source}': {reason}") from None


def is_mlflow_model(source: str) -> bool:
    """Return whether a source names an MLflow model: a URI, or a folder with an `MLmodel` file."""
    return bool(_URI.match(source)) or (Path(source) / "MLmodel").exists()


def download(source: str) -> Path:
    """Return the local folder of an MLflow model, downloading it if necessary. Raises BadModel."""
    if not _URI.match(source):
        return Path(source).resolve()  # MLflow rejects models behind symbolic links
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        return Path(download_artifacts(source))
    except (MlflowException, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadModel(f"no model can be loaded from '{source}': {reason}") from None


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
