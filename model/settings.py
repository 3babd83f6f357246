"""What a deployment may set in `model_config`, besides defaults for the params."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from model.images import ImageLimits
from model.precision import EXACT


@dataclass(frozen=True)
class Settings:
    """device: `cpu`, `cuda`, `cuda:1`; None takes `cuda` when there is one.
    precision: of the image encoder, as `precision.lower` has it.
    cache_bytes: memory for kept embeddings (SAM: 4 MiB an image, SAM2: 16 MiB).
    images_per_batch, prompts_per_batch: how many are encoded or decoded at once; None chooses by the device.
    max_prompts: most prompts that one row may hold.
    max_pixels, max_side, max_bytes, urls, hosts, fetch_seconds, local_paths: as ImageLimits has them.
    """

    device: str | None = None
    precision: str = EXACT
    cache_bytes: int = 2**30
    images_per_batch: int | None = None
    prompts_per_batch: int | None = None
    max_prompts: int = 10_000
    max_pixels: int = ImageLimits.max_pixels
    max_side: int = ImageLimits.max_side
    max_bytes: int = ImageLimits.max_bytes
    urls: bool = ImageLimits.urls
    hosts: list[str] = field(default_factory=lambda: list(ImageLimits.hosts))
    fetch_seconds: float = ImageLimits.fetch_seconds
    local_paths: bool = ImageLimits.local_paths

    @property
    def limits(self) -> ImageLimits:
        names = [one.name for one in fields(ImageLimits)]
        return ImageLimits(**{name: getattr(self, name) for name in names} | {"hosts": tuple(self.hosts)})
