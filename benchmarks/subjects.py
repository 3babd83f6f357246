"""The subjects of the measurements: starter checkpoints, random checkpoints of Meta's sizes, and images."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from transformers import Sam2Model, SamModel

from sam_endpoint.model import families
from sam_endpoint.model.embeddings import EmbeddingCache
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.families import meta
from sam_endpoint.model.images import ImageLimits, ImageReader
from sam_endpoint.model.precision import EXACT
from sam_endpoint.model.segmenter import Segmenter

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".cache" / "benchmarks"
EMBEDDED = tuple(sorted(file.parent.name for file in (ROOT / "checkpoints").glob("*/config.json")))
RANDOM = ("vit-b", "vit-l", "sam2-base-plus")
SAM2_SIZES = {"sam2-base-plus": (112, 24), "sam2-large": (144, 48)}  # keys of `meta.SAM2_SIZES`
SIZE = (1000, 1000)  # (height, width) of the image in most cases


@cache
def checkpoint(name: str) -> Path:
    """Return the folder of a starter or random checkpoint. The first call creates a random checkpoint."""
    if name in EMBEDDED:
        return ROOT / "checkpoints" / name
    folder = FOLDER / name
    if not (folder / "preprocessor_config.json").exists():
        torch.manual_seed(0)
        if size := SAM2_SIZES.get(name):
            model: torch.nn.Module = Sam2Model(meta.sam2_config(size[0], *meta.SAM2_SIZES[size]))
        else:
            channels = {"vit-b": 768, "vit-l": 1024}[name]
            config = meta.sam_config(channels, *meta.SAM_SIZES[channels])
            vision: Any = config.vision_config
            vision.initializer_range = 0.02  # with the default, 1e-10, all images have the same embedding
            model = SamModel(config)
            _smooth(model)
        for key, weight in model.named_parameters():
            if "rel_pos" in key or "pos_embed" in key:
                torch.nn.init.normal_(weight, std=0.1)
        families.save(families.wrap(model), folder)
    return folder


@torch.no_grad()
def _smooth(model: SamModel) -> None:
    """Change random weights so that masks have few outlines, as with trained weights.

    The kernels of the upscaling get equal values in their four places. The frequencies of the position embedding get
    the scale of Meta's checkpoints, which is some hundred times lower. The remaining noise varies between tokens, not
    between pixels.
    """
    for conv in (model.mask_decoder.upscale_conv1, model.mask_decoder.upscale_conv2):
        conv.weight.copy_(conv.weight.mean((2, 3), keepdim=True).expand_as(conv.weight))
    positions = model.shared_image_embedding.positional_embedding
    torch.nn.init.normal_(positions)
    model.prompt_encoder.shared_embedding.positional_embedding.copy_(positions)


def load(name: str, precision: str = EXACT) -> Segmenter:
    """Load a checkpoint on the CPU."""
    return Segmenter.load(str(checkpoint(name)), "cpu", precision)


def engine_of(segmenter: Segmenter, local_paths: bool = False) -> Engine:
    """Return an engine with an empty cache.

    Args:
        segmenter: the model.
        local_paths: whether images may be paths.
    """
    return Engine(segmenter, ImageReader(ImageLimits(local_paths=local_paths)), EmbeddingCache(2**28))


@cache
def picture(height: int, width: int) -> np.ndarray:
    """Return a (height, width, 3) uint8 image with soft and sharp detail at several scales."""
    rng = np.random.default_rng(0)
    image = np.zeros((height, width, 3), np.float32)
    for cells in (6, 24, 96):
        small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        image += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 3
    return np.asarray(Image.fromarray(image.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1)))


@cache
def photograph(height: int, width: int) -> np.ndarray:
    """Return the sample image of coins, resized to (height, width, 3) uint8."""
    return np.asarray(Image.open(ROOT / "samples" / "coins.png").convert("RGB").resize((width, height)))


def jpeg(image: np.ndarray) -> bytes:
    """Encode a (height, width, 3) uint8 image as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def boxes(count: int, height: int, width: int) -> list[list[float]]:
    """Return random boxes of all sizes, each x1, y1, x2, y2 in pixels, in an image of a size."""
    rng = np.random.default_rng(1)
    corners = rng.random((count, 2, 2)).astype(np.float32)
    low, high = corners.min(1), corners.max(1) + 0.02
    scaled: list[list[float]] = (np.concatenate([low, high], 1).clip(0, 1) * [width, height, width, height]).tolist()
    return scaled
