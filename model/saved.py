"""Open saved MLflow models without running their code: only weights, config, signature and metadata are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .deployment import DeploymentSettings, split_config
from .embeddings import EmbeddingCache
from .engine import Engine
from .errors import BadModel
from .images import ImageReader
from .params import TASK, ParamDefaults, checkpoint_params
from .segmenter import Segmenter

FORMAT = 1  # format of saved models; increment it with every change that older versions cannot read
FIRST_VERSION = "0.1.0"  # the only version that wrote no version into the metadata


@dataclass(frozen=True)
class SavedModel:
    """An MLflow model that `sam-endpoint package` saved.

    Attributes:
        folder: the folder with the `MLmodel` file.
        checkpoint: the folder with the weights.
        detector: the folder with the weights of a detector for texts, or None.
        config: the `model_config` of the saved model.
        packaged_params: the default params in the signature, by name.
        metadata: the MLflow metadata: `family`, `base_model`, `weights_sha256`, `packaged_by`, ...
        run_id: id of the MLflow run that logged the model, or None.
    """

    folder: Path
    checkpoint: Path
    config: Mapping[str, Any]
    packaged_params: Mapping[str, Any]
    metadata: Mapping[str, Any]
    run_id: str | None
    detector: Path | None = None

    @property
    def version(self) -> str:
        """The version of this project that packaged the model."""
        return str(self.metadata.get("packaged_by", FIRST_VERSION))

    @classmethod
    def read(cls, folder: str | Path) -> SavedModel:
        """Read the `MLmodel` file of a folder. The weights are not loaded.

        Args:
            folder: the folder of an MLflow model.

        Raises:
            BadModel: the folder holds no MLflow model, the model of another project, or a format that this version
                cannot read.
        """
        folder = Path(folder)
        try:
            described = yaml.safe_load((folder / "MLmodel").read_text())
            flavor = described["flavors"]["python_function"]
            checkpoint = folder / flavor["artifacts"]["checkpoint"]["path"]
            artifact = flavor["artifacts"].get("detector")
            detector = None if artifact is None else folder / artifact["path"]
            params = json.loads((described.get("signature") or {}).get("params") or "[]")
            metadata = described.get("metadata") or {}
            packaged_params = {param["name"]: param["default"] for param in params}
        except (OSError, yaml.YAMLError, ValueError):
            raise BadModel(f"'{folder}' holds no MLflow model (no readable MLmodel file)") from None
        except (KeyError, TypeError, AttributeError):
            raise BadModel(f"'{folder}' is an MLflow model, but not one packaged by `sam-endpoint package`") from None
        if metadata.get("task") != TASK:
            raise BadModel(f"'{folder}' is an MLflow model, but not one packaged by `sam-endpoint package`")
        config, run_id = flavor.get("config") or {}, described.get("run_id")
        saved = cls(folder, checkpoint, config, packaged_params, metadata, run_id, detector)
        if (written := metadata.get("format", FORMAT)) != FORMAT:
            raise BadModel(
                f"'{folder}' was packaged by version {saved.version} in format {written}; this version reads format "
                f"{FORMAT}. Package the checkpoint again, or serve it with version {saved.version}"
            )
        return saved

    def defaults(self, config: Mapping[str, Any] | None = None) -> ParamDefaults:
        """Return the default params of a deployment.

        Args:
            config: settings and default params that override those of the saved model.

        Raises:
            BadParameter: as `deployment.split_config`.
        """
        return ParamDefaults(self.packaged_params, split_config({**self.config, **(config or {})})[1])

    def settings(self, config: Mapping[str, Any] | None = None) -> DeploymentSettings:
        """Return the settings of a deployment.

        Args:
            config: settings and default params that override those of the saved model.

        Raises:
            BadParameter: as `deployment.split_config`.
        """
        return split_config({**self.config, **(config or {})})[0]

    def open(self, config: Mapping[str, Any] | None = None) -> tuple[Engine, ParamDefaults]:
        """Load the weights and create an engine.

        Args:
            config: settings and default params that override those of the saved model.

        Returns:
            The engine, and the default params of the deployment.

        Raises:
            BadParameter: as `deployment.split_config`.
            BadModel: the SHA-256 of the weights differs from the packaged one.
            ValueError: the weights cannot be loaded, or the device does not exist.
        """
        settings = self.settings(config)
        with ThreadPoolExecutor(1) as pool:
            hashes = pool.submit(weights_sha256, self.checkpoint, self.detector)
            engine = open_engine(str(self.checkpoint), settings, None if self.detector is None else str(self.detector))
        packaged = self.metadata.get("weights_sha256")
        if packaged is not None and packaged != hashes.result():
            raise BadModel(
                f"the weights in '{self.checkpoint}' differ from the packaged weights; package the checkpoint again"
            )
        return engine, self.defaults(config)


def open_checkpoint(checkpoint: str, config: Mapping[str, Any]) -> tuple[Engine, ParamDefaults]:
    """Load a checkpoint that is not packaged, and create an engine.

    Args:
        checkpoint: as in `Segmenter.load`.
        config: settings and default params that override the defaults.

    Returns:
        As `SavedModel.open`. The packaged defaults are those of the checkpoint's config.

    Raises:
        BadParameter: as `deployment.split_config`.
        BadModel: as `checkpoint_params`.
        ValueError: as `Segmenter.load`.
    """
    settings, deployed = split_config(config)
    engine = open_engine(checkpoint, settings)
    return engine, ParamDefaults(checkpoint_params(engine.segmenter.family.model.config), deployed)


def open_engine(checkpoint: str, settings: DeploymentSettings, detector: str | None = None) -> Engine:
    """Load a checkpoint and create an engine with the settings of a deployment.

    Args:
        checkpoint: as in `Segmenter.load`.
        settings: the settings.
        detector: as in `Segmenter.load`.

    Raises:
        ValueError: as `Segmenter.load`.
    """
    segmenter = Segmenter.load(
        checkpoint,
        settings.device,
        settings.precision,
        detector,
        images_per_batch=settings.images_per_batch,
        prompts_per_batch=settings.prompts_per_batch,
        compiled=settings.compile_encoder,
    )
    device, device_bytes = segmenter.family.device, settings.device_cache_bytes
    cache = EmbeddingCache(settings.cache_bytes, device=device, device_bytes=device_bytes)
    return Engine(segmenter, ImageReader(settings.limits), cache, settings.max_prompts)


def weights_sha256(*folders: Path | None) -> dict[str, str]:
    """Return the SHA-256 of each safetensors file in folders, as hexadecimal text by file name.

    The names of files in further folders begin with the name of their folder. A folder may be None. Raises OSError if a
    folder does not exist.
    """
    hashes = {}
    for place, folder in enumerate(folders):
        files = folder.iterdir() if folder is not None else ()
        for file in sorted(file for file in files if file.suffix == ".safetensors"):
            with file.open("rb") as stream:
                name = f"{folder.name}/{file.name}" if folder is not None and place else file.name
                hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes
