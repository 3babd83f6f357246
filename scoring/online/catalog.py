"""The catalog of served models: load models by name, and evict the least recently used ones.

The catalog file marks some models as `warm`. These models and the default model are loaded at start. Every other model
is loaded when a request first names it.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sam_endpoint.model.embeddings import EmbeddingCache, Store
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadModel, UnknownModel, describe_name
from sam_endpoint.model.images import ImageLimits, ImageReader
from sam_endpoint.model.prompts import EMPTY_PROMPT
from sam_endpoint.scoring.online.batching import BatchedSegmenter, Batcher, Batching
from sam_endpoint.scoring.online.catalog_file import WELL_KNOWN, Entry, catalog_of_model, read_catalog
from sam_endpoint.scoring.online.served_model import DESCRIBED, ServedModel
from sam_endpoint.scoring.online.settings import EndpointSettings
from sam_endpoint.scoring.runtime import LocatedModel, is_starter, locate, one_line, open_model, registered_version

logger = logging.getLogger(__name__)


# An entry of the catalog, and its model if the model is loaded.
@dataclass
class _Slot:
    entry: Entry
    located: LocatedModel | None = None  # the model that --model names, or the version that `refresh` loaded last
    lock: threading.Lock = field(default_factory=threading.Lock)
    served: ServedModel | None = None
    last_used: float = 0.0


class Catalog:
    """The served models by name. Safe to share between threads.

    Each model has one key in the catalog and any number of further names. `names` are further names of the model
    itself. `stands_in_for` are names of other models. The model answers requests for these other models. If the catalog
    evicts a model, requests in progress can still finish with the evicted model.

    Args:
        settings: settings of the endpoint. `model` is the URI of a single MLflow model; without it, the catalog file
            lists the models.

    Attributes:
        default: key of the default model.
        embeddings: cache of image embeddings, shared by all models.
        ready: whether `warm_up` has loaded the default model and all models marked `warm`.

    Raises:
        BadModel: the catalog file or the model of the settings is invalid, or the embedding store cannot be opened.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        store, device_bytes = _open_store(settings, device), settings.device_embedding_bytes
        self.embeddings = EmbeddingCache(settings.embedding_bytes, store, device, device_bytes)
        located = locate(settings.model) if settings.model else None
        catalog = catalog_of_model(located) if located else read_catalog(settings.catalog)
        self.default = catalog.default
        self._slots = {key: _Slot(entry, located) for key, entry in catalog.models.items()}
        self.ready = False
        self._refreshing = threading.Lock()
        self._keys: dict[str, str] = {}
        for key, entry in catalog.models.items():
            self._keys.update((name, key) for name in (key, *entry.names, *entry.stands_in_for))
        for key, entry in catalog.models.items():
            if entry.stands_in_for:
                logger.warning("model %s also answers requests for %s", key, ", ".join(entry.stands_in_for))

    @property
    def names(self) -> list[str]:
        """Every name that a request may use for a model."""
        return list(self._keys)

    def loaded(self) -> list[ServedModel]:
        """Return the models that are loaded at the moment."""
        return [slot.served for slot in self._slots.values() if slot.served is not None]

    def is_computing(self) -> bool:
        """Return whether a model encodes or decodes a batch at the moment."""
        return any(queue.is_running for served in self.loaded() for queue in served.queues.values())

    def warm_up(self) -> None:
        """Load the default model and all models marked `warm`. If all of them are loaded, set `ready`.

        If a model cannot be loaded, log the reason and go on with the next.
        """
        failed = False
        for key, slot in self._slots.items():
            if slot.entry.warm or key == self.default:
                try:
                    self.get(key)
                except Exception as error:
                    logger.error("model %s cannot be loaded: %s", key, one_line(error))
                    failed = True
        self.ready = not failed

    def get(self, name: str | None = None) -> ServedModel:
        """Return the model with a name, and load it if it is not loaded.

        Args:
            name: any name of the model; None or "" for the default model.

        Raises:
            UnknownModel: no model has this name.
            BadModel: the model cannot be loaded.
        """
        key = self.key(name)
        slot = self._slots[key]
        with slot.lock:
            slot.last_used = time.monotonic()
            if slot.served is None:
                slot.served = self._load(key, slot)
            served = slot.served
        self._evict(key)
        return served

    def key(self, name: str | None = None) -> str:
        """Return the key of the model that has a name, without loading the model.

        Args:
            name: the model's name; None for the default model.

        Raises:
            UnknownModel: no model has this name.
        """
        key = self._keys.get(name or self.default)
        if key is None:
            described = describe_name(name, self._keys)
            raise UnknownModel(
                f"no model of this name ({described}) is served here; this endpoint serves {', '.join(self.names)}"
            )
        return key

    def name_for_family(self, family: str) -> str:
        """Return the key of a served model of a family: the default model if it is of the family, else another model.

        Args:
            family: `sam` or `sam2`.

        Raises:
            UnknownModel: no model of the family is served.
        """
        known = WELL_KNOWN.get(family, [])
        for key, slot in sorted(self._slots.items(), key=lambda item: item[0] != self.default):
            if slot.served is not None and slot.served.engine.family == family:
                return key
            if any(name in known for name in (*slot.entry.names, *slot.entry.stands_in_for)):
                return key
        raise UnknownModel(f"no {family} model is served here; this endpoint serves {', '.join(self.names)}")

    def refresh(self) -> list[dict[str, Any]]:
        """Replace each loaded model if the registry now has another version under the model's alias or `latest`.

        The catalog loads the new version beside the old version and segments a small image with it. After that, new
        requests get the new version. Requests in progress finish with the version that they began with. If the new
        version cannot be loaded, the catalog logs the error and keeps the old version.

        Returns:
            One dictionary for each replaced model: `name` (its key), `before` (old version) and `now` (new version).
        """
        replaced = []
        with self._refreshing:
            for key, slot in self._slots.items():
                served = slot.served
                if served is None:
                    continue
                try:
                    version = registered_version(served.origin["source"]).get("version")
                    if version == served.origin.get("version"):
                        continue
                    located = locate(served.origin["source"])
                    following = self._load(key, slot, located)
                    _use_once(following.engine)
                except Exception as error:
                    logger.error("model %s keeps its version, because refreshing failed: %s", key, one_line(error))
                    continue
                with slot.lock:
                    slot.served, slot.located = following, located
                versions = {"before": served.origin.get("version"), "now": following.origin.get("version")}
                logger.info("model %s: version %s is replaced by %s", key, *versions.values())
                replaced.append({"name": key, **versions})
        return replaced

    def _evict(self, wanted: str) -> None:
        """Evict the least recently used models while all loaded models together exceed `model_bytes`.

        The default model and the wanted model are never evicted.
        """
        while True:
            warm = {key: slot.served for key, slot in self._slots.items() if slot.served is not None}
            nbytes = sum(served.nbytes for served in warm.values())
            candidates = [key for key in warm if key not in (wanted, self.default)]
            if nbytes <= self.settings.model_bytes or not candidates:
                return
            oldest = min(candidates, key=lambda key: self._slots[key].last_used)
            logger.info("model %s is evicted: the loaded models exceed --model-bytes", oldest)
            self._slots[oldest].served = None

    def _load(self, key: str, slot: _Slot, located: LocatedModel | None = None) -> ServedModel:
        """Load a model.

        Args:
            key: key of the model.
            slot: the slot of the model.
            located: the version to load; None for the version or the checkpoint in the slot.
        """
        started = time.monotonic()
        chosen = {name: getattr(self.settings, name) for name in ("precision", "compile_encoder")}
        source = located or slot.located or slot.entry.model or self._checkpoint(slot.entry)
        opened = open_model(source, self.settings.device, **{k: v for k, v in chosen.items() if v is not None})
        settings, plain = self.settings, opened.engine.segmenter
        segmenter = BatchedSegmenter(
            plain,
            Batching(settings.batch_images, settings.batch_requests, settings.batch_wait, settings.in_flight * 4),
        )
        limits = self._limits(opened.engine.images.limits)
        engine = Engine(segmenter, ImageReader(limits), self.embeddings, settings.prompts)
        logger.info("model %s is loaded after %.1f s", key, time.monotonic() - started)
        queues: dict[str, Batcher[Any, Any]] = {
            "encode": segmenter.encoder,
            "decode": segmenter.decoder,
            "detect": segmenter.runner,
        }
        origin, starter = opened.describe(), opened.is_starter
        return ServedModel(
            key, engine, opened.defaults, plain.weights_nbytes, queues, origin, starter, settings.limits()
        )

    def _limits(self, limits: ImageLimits) -> ImageLimits:
        """Return a model's limits on images, overridden by the settings of the endpoint."""
        settings = self.settings
        return replace(
            limits,
            max_pixels=settings.pixels,
            max_bytes=settings.image_bytes,
            urls=limits.urls and settings.urls,
            hosts=settings.image_hosts() or limits.hosts,
            fetch_seconds=settings.fetch_seconds,
        )

    def _checkpoint(self, entry: Entry) -> str:
        """Return the source of an entry's checkpoint.

        A relative path is resolved against the folder of the catalog file. Any other text, such as a Hugging Face id,
        is returned unchanged.
        """
        beside = self.settings.catalog.parent / str(entry.checkpoint)
        return str(beside.resolve()) if beside.exists() else str(entry.checkpoint)

    def _is_starter(self, slot: _Slot) -> bool:
        if slot.served is not None:
            return slot.served.starter
        return slot.entry.checkpoint is not None and is_starter(Path(self._checkpoint(slot.entry)))

    def describe(self) -> list[dict[str, Any]]:
        """Return the response of `/models`: an object for each model. `warm` says whether it is loaded now."""
        return [
            {
                "name": key,
                "default": key == self.default,
                "starter": self._is_starter(slot),
                "warm": slot.served is not None,
                "names": [key, *slot.entry.names],
                "stands_in_for": slot.entry.stands_in_for,
                **(slot.served.describe() if slot.served else dict.fromkeys(DESCRIBED)),
            }
            for key, slot in self._slots.items()
        ]


def _use_once(engine: Engine) -> None:
    """Segment a small image. The first use of a model is slow, and this call spares requests the wait."""
    image = engine.segmenter.embed([np.zeros((64, 64, 3), np.uint8)])[0]
    engine.segmenter.segment(image, [EMPTY_PROMPT] if engine.concepts.capabilities["points"] else [])


def _open_store(settings: EndpointSettings, device: str) -> Store | None:
    """Open the persistent store of embeddings. Return None if the settings have no URL of a store.

    Raises:
        BadModel: fsspec cannot open the URL.
    """
    url, key = settings.embedding_store, settings.embedding_store_key
    try:
        secret = key.get_secret_value().encode() if key else b""
        return Store(url, device, secret, settings.embedding_store_bytes) if url else None
    except (ValueError, ImportError, OSError) as error:
        raise BadModel(f"--embedding-store '{url}' cannot be used: {one_line(error)}") from None
