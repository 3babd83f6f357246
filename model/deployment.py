"""DeploymentSettings of a deployment, read from a model's `model_config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .errors import BadParameter
from .images import ImageLimits
from .params import PARAM_NAMES, Params
from .precision import EXACT


@dataclass(frozen=True)
class DeploymentSettings:
    """What a deployment may set in `model_config`, besides defaults for the params.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1`; None takes `cuda` if there is one.
        precision: precision of the image encoder, one of `precision.PRECISIONS`.
        cache_bytes: memory for cached embeddings (SAM: 4 MiB an image, SAM 2: 16 MiB).
        images_per_batch: images encoded together; None chooses by the device.
        prompts_per_batch: prompts decoded together; None chooses by the device.
        max_prompts: largest number of prompts in one row.
        max_answer_bytes: largest answer to one table.
        max_pixels, max_side, max_bytes, urls, hosts, fetch_seconds, local_paths: as in `images.ImageLimits`.
    """

    device: str | None = None
    precision: str = EXACT
    cache_bytes: int = 2**30
    images_per_batch: int | None = None
    prompts_per_batch: int | None = None
    max_prompts: int = 10_000
    max_answer_bytes: int = 2**31
    max_pixels: int = ImageLimits.max_pixels
    max_side: int = ImageLimits.max_side
    max_bytes: int = ImageLimits.max_bytes
    urls: bool = ImageLimits.urls
    hosts: list[str] = field(default_factory=lambda: list(ImageLimits.hosts))
    fetch_seconds: float = ImageLimits.fetch_seconds
    local_paths: bool = ImageLimits.local_paths

    @property
    def limits(self) -> ImageLimits:
        """The limits on images among these settings."""
        names = [field.name for field in fields(ImageLimits)]
        return ImageLimits(**{name: getattr(self, name) for name in names} | {"hosts": tuple(self.hosts)})


def split_config(config: Mapping[str, Any]) -> tuple[DeploymentSettings, dict[str, Any]]:
    """Return the settings and the default params of a `model_config`. Raises BadParameter for unknown names."""
    params = {name: config[name] for name in PARAM_NAMES if name in config}
    settings = {name: value for name, value in config.items() if name not in PARAM_NAMES}
    known = {field.name for field in fields(DeploymentSettings)}
    if unknown := sorted(set(settings) - known):
        raise BadParameter(f"unknown setting '{unknown[0]}'; known are {', '.join((*sorted(known), *PARAM_NAMES))}")
    Params.read(params)
    return DeploymentSettings(**settings), params


def full_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `model_config` with every setting and param, because MLflow overrides only keys that were saved.

    Raises BadParameter for unknown names and for params out of range.
    """
    split_config(config)
    return {**asdict(DeploymentSettings()), **asdict(Params()), **config}
