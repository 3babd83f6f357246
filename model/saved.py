"""Saved MLflow models read as data: weights, config, signature and metadata, without running code from the model."""

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
from .params import ParamDefaults
from .segmenter import Segmenter

FORMAT = 1  # of what `package.save` writes; a change that older code cannot read adds 1
FIRST_VERSION = "0.1.0"  # wrote no version into its metadata


@dataclass(frozen=True)
class SavedModel:
    """An MLflow model folder that `sam-endpoint package` wrote.

    Attributes:
        folder: the folder with the `MLmodel` file.
        checkpoint: the folder with the weights.
        config: the `model_config` it was saved with.
        packaged_params: default params of its signature.
        metadata: its MLflow metadata: `family`, `base_model`, `weights_sha256`, `packaged_by`, ...
        run_id: the MLflow run that logged it, or None.
    """

    folder: Path
    checkpoint: Path
    config: Mapping[str, Any]
    packaged_params: Mapping[str, Any]
    metadata: Mapping[str, Any]
    run_id: str | None

    @property
    def version(self) -> str:
        """Version of this project that packaged the model."""
        return str(self.metadata.get("packaged_by", FIRST_VERSION))

    @classmethod
    def read(cls, folder: str | Path) -> SavedModel:
        """Read a folder.

        Raises:
            BadModel: the folder holds no MLflow model, another project's model, or one of a format that this version
                cannot read.
        """
        folder = Path(folder)
        try:
            described = yaml.safe_load((folder / "MLmodel").read_text())
            flavor = described["flavors"]["python_function"]
            checkpoint = folder / flavor["artifacts"]["checkpoint"]["path"]
            params = json.loads((described.get("signature") or {}).get("params") or "[]")
            metadata = described.get("metadata") or {}
            packaged_params = {param["name"]: param["default"] for param in params}
        except (OSError, yaml.YAMLError, ValueError):
            raise BadModel(f"'{folder}' holds no MLflow model (no readable MLmodel file)") from None
        except (KeyError, TypeError, AttributeError):
            raise BadModel(f"'{folder}' is an MLflow model, but not one packaged by `sam-endpoint package`") from None
        if metadata.get("task") != "mask-generation":
            raise BadModel(f"'{folder}' is an MLflow model, but not one packaged by `sam-endpoint package`")
        saved = cls(folder, checkpoint, flavor.get("config") or {}, packaged_params, metadata, described.get("run_id"))
        if (written := metadata.get("format", FORMAT)) != FORMAT:
            raise BadModel(
                f"'{folder}' was packaged by version {saved.version} in format {written}; this version reads format "
                f"{FORMAT}. Package the checkpoint again, or serve it with version {saved.version}"
            )
        return saved

    def defaults(self, config: Mapping[str, Any] | None = None) -> ParamDefaults:
        """Return the default params of a deployment with this config over the saved one. Raises BadParameter."""
        return ParamDefaults(self.packaged_params, split_config({**self.config, **(config or {})})[1])

    def settings(self, config: Mapping[str, Any] | None = None) -> DeploymentSettings:
        """Return the settings of a deployment with this config over the saved one. Raises BadParameter."""
        return split_config({**self.config, **(config or {})})[0]

    def open(self, config: Mapping[str, Any] | None = None) -> tuple[Engine, ParamDefaults]:
        """Load the weights.

        Args:
            config: settings and default params of this deployment, over those it was saved with.

        Returns:
            The engine, and the deployment's default params.

        Raises:
            BadParameter: a setting or param is unknown or out of range.
            BadModel: the weights are not those that were packaged.
            ValueError: the weights cannot be loaded, or the device does not exist.
        """
        settings = self.settings(config)
        with ThreadPoolExecutor(1) as pool:
            hashes = pool.submit(weights_sha256, self.checkpoint)
            segmenter = Segmenter.load(
                str(self.checkpoint),
                settings.device,
                settings.precision,
                images_per_batch=settings.images_per_batch,
                prompts_per_batch=settings.prompts_per_batch,
            )
        packaged = self.metadata.get("weights_sha256")
        if packaged is not None and packaged != hashes.result():
            raise BadModel("the weights beside the model are not those it was packaged with; package it again")
        cache = EmbeddingCache(settings.cache_bytes)
        engine = Engine(segmenter, ImageReader(settings.limits), cache, settings.max_prompts)
        return engine, self.defaults(config)


def weights_sha256(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each safetensors file in a folder, by file name."""
    hashes = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            hashes[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes
