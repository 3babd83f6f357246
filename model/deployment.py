"""The settings of a deployment, read from the `model_config` of an MLflow model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .budget import RequestLimits
from .call import Call
from .errors import BadParameter
from .images import ImageLimits
from .params import PARAM_NAMES, Params


@dataclass(frozen=True)
class DeploymentSettings:
    """The settings of a deployment. A `model_config` holds these settings and default params.

    Attributes:
        device: `cpu`, `cuda` or `cuda:1`; None uses `cuda` if available, otherwise `cpu`.
        precision: precision of the image encoder, one of `precision.PRECISIONS`; None for `bfloat16` on a GPU and
            `float32` on a CPU.
        compile_encoder: whether to compile the image encoder when the model is loaded (see `ImageEncoder`).
        cache_bytes: memory for cached embeddings in bytes (SAM: 4 MiB per image, SAM 2: 16 MiB).
        device_cache_bytes: memory of a GPU for cached embeddings in bytes; the others are in the memory of the host.
        images_per_batch: number of images encoded together; None uses a default for the device.
        prompts_per_batch: number of prompts decoded together; None uses a default for the device.
        max_prompts: maximum number of prompts in one row, and of points in one prompt.
        max_answer_bytes: maximum size of the response to one table in bytes.
        max_rows: maximum number of rows in one table; None for no limit.
        max_points: maximum number of grid points for automatic mask generation in one table, in all crops; None for no
            limit.
        max_seconds: time limit for one table in seconds; None for no limit.
        max_pixels, max_side, max_bytes, urls, hosts, fetch_seconds, local_paths: as in `images.ImageLimits`.
    """

    device: str | None = None
    precision: str | None = None
    compile_encoder: bool = False
    cache_bytes: int = 2**30
    device_cache_bytes: int = 2**30
    images_per_batch: int | None = None
    prompts_per_batch: int | None = None
    max_prompts: int = 10_000
    max_answer_bytes: int = 2**31
    max_rows: int | None = None
    max_points: int | None = None
    max_seconds: float | None = None
    max_pixels: int = ImageLimits.max_pixels
    max_side: int = ImageLimits.max_side
    max_bytes: int = ImageLimits.max_bytes
    urls: bool = ImageLimits.urls
    hosts: list[str] = field(default_factory=lambda: list(ImageLimits.hosts))
    fetch_seconds: float = ImageLimits.fetch_seconds
    local_paths: bool = ImageLimits.local_paths

    @property
    def request_limits(self) -> RequestLimits:
        """The limits on one table, which are part of the settings."""
        return RequestLimits(rows=self.max_rows, points=self.max_points, answer_bytes=self.max_answer_bytes)

    def new_call(self) -> Call:
        """Return the context of one request, with the time limit and the maximum size of the response."""
        return Call(seconds=self.max_seconds, max_answer_bytes=self.max_answer_bytes)

    @property
    def limits(self) -> ImageLimits:
        """The limits on images, which are part of the settings."""
        names = [field.name for field in fields(ImageLimits)]
        return ImageLimits(**{name: getattr(self, name) for name in names} | {"hosts": tuple(self.hosts)})


def split_config(config: Mapping[str, Any]) -> tuple[DeploymentSettings, dict[str, Any]]:
    """Split a `model_config` into settings and default params.

    Args:
        config: settings and default params by name; absent settings get their defaults.

    Returns:
        The settings, and those default params that `config` holds.

    Raises:
        BadParameter: a name is unknown, or a param has the wrong type or is out of range.

    Example:
        >>> settings, params = split_config({"max_prompts": 100, "mask_encoding": "rle"})
        >>> settings.max_prompts, params
        (100, {'mask_encoding': 'rle'})
    """
    params = {name: config[name] for name in PARAM_NAMES if name in config}
    settings = {name: value for name, value in config.items() if name not in PARAM_NAMES}
    known = {field.name for field in fields(DeploymentSettings)}
    if unknown := sorted(set(settings) - known):
        names = ", ".join((*sorted(known), *PARAM_NAMES))
        raise BadParameter(f"unknown setting '{unknown[0]}'; the known settings and params are {names}")
    Params.read(params)
    return DeploymentSettings(**settings), params


def full_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Add the default of every absent setting and param to a `model_config`.

    A saved model needs all of them, because MLflow lets a deployment override only keys that were saved.

    Args:
        config: settings and default params by name.

    Raises:
        BadParameter: as `split_config`.
    """
    split_config(config)
    return {**asdict(DeploymentSettings()), **asdict(Params()), **config}
