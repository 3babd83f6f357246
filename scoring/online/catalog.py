"""The models behind the endpoint, by name: some warm at start, the others loaded on first use."""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from sam_endpoint.model.budget import NO_LIMITS, RequestLimits
from sam_endpoint.model.embeddings import EmbeddingCache, Store
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadModel, UnknownModel, describe_name
from sam_endpoint.model.images import ImageLimits, ImageReader
from sam_endpoint.model.params import ParamDefaults
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.scoring.online.batching import BatchedSegmenter, Batcher, Batching
from sam_endpoint.scoring.online.catalog_file import WELL_KNOWN, Entry, catalog_of_model, read_catalog
from sam_endpoint.scoring.online.context import RequestContext
from sam_endpoint.scoring.online.settings import EndpointSettings
from sam_endpoint.scoring.runtime import LocatedModel, is_starter, locate, one_line, open_model

logger = logging.getLogger(__name__)
MAX_HEADER = 100  # characters of a name in a header


@dataclass(frozen=True)
class ServedModel:
    """A model that is loaded.

    Attributes:
        name: its name in the catalog.
        engine: embeds and segments images, shared by all tenants.
        defaults: default params of requests.
        nbytes: bytes of its weights.
        queues: the queues in front of it, by name.
        origin: where it came from, as `/models` reports it.
        starter: whether it is one of the embedded models.
        limits: what a request for a table may cost.
    """

    name: str
    engine: Engine
    defaults: ParamDefaults
    nbytes: int
    queues: dict[str, Batcher[Any, Any]]
    origin: dict[str, Any]
    starter: bool = False
    limits: RequestLimits = NO_LIMITS

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a response that name the model and, if it is registered, its version."""
        names = {"x-answered-by": self.name, "x-model-version": self.origin.get("version")}
        return {header: re.sub("[^!-~]", "_", name)[:MAX_HEADER] for header, name in names.items() if name is not None}

    def engine_for(self, context: RequestContext) -> Engine:
        """Return the engine as the tenant of a request sees it."""
        return self.engine.for_tenant(context.tenant or "")

    def scorer(self, context: RequestContext) -> Scorer:
        """Return a scorer over the engine as the tenant of a request sees it."""
        return Scorer(self.engine_for(context), self.limits)


@dataclass
class _Slot:
    entry: Entry
    located: LocatedModel | None = None  # of the model in the settings
    lock: threading.Lock = field(default_factory=threading.Lock)
    served: ServedModel | None = None
    used: float = 0.0


class Catalog:
    """Models by name. Safe to share between threads; an evicted model stays usable for requests that hold it.

    Raises:
        BadModel: the catalog file, or the model of the settings, cannot be used.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.embeddings = EmbeddingCache(settings.embedding_bytes, _open_store(settings, device))
        located = locate(settings.model) if settings.model else None
        described = catalog_of_model(located) if located else read_catalog(settings.catalog)
        self.default = described.default
        self._slots = {key: _Slot(entry, located) for key, entry in described.models.items()}
        self.ready = False
        self._keys: dict[str, str] = {}
        for key, entry in described.models.items():
            self._keys.update((name, key) for name in (key, *entry.names, *entry.stands_in_for))
        for key, entry in described.models.items():
            if entry.stands_in_for:
                logger.warning("%s stands in for %s", key, ", ".join(entry.stands_in_for))

    @property
    def names(self) -> list[str]:
        """Every name that is served."""
        return list(self._keys)

    def warm(self) -> list[ServedModel]:
        """Return the models that are loaded."""
        return [slot.served for slot in self._slots.values() if slot.served is not None]

    def warm_up(self) -> None:
        """Load the default model and those marked warm, and set `ready` if all of them can be loaded.

        A model that cannot be loaded is logged; the others are served.
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
        """Return the model of a name, by default the default model; it is loaded if necessary.

        Raises:
            UnknownModel: no model has this name.
            BadModel: the model cannot be loaded.
        """
        key = self._keys.get(name or self.default)
        if key is None:
            described = describe_name(name, self._keys)
            raise UnknownModel(
                f"no model of this name ({described}) is served here; served are {', '.join(self.names)}"
            )
        slot = self._slots[key]
        with slot.lock:
            slot.used = time.monotonic()
            if slot.served is None:
                slot.served = self._load(key, slot)
            served = slot.served
        self._evict(key)
        return served

    def of_family(self, family: str) -> str:
        """Return the name of a model of a family, the default model's if it is one. Raises UnknownModel."""
        known = WELL_KNOWN.get(family, [])
        for key, slot in sorted(self._slots.items(), key=lambda item: item[0] != self.default):
            if slot.served is not None and slot.served.engine.family == family:
                return key
            if any(name in known for name in (*slot.entry.names, *slot.entry.stands_in_for)):
                return key
        raise UnknownModel(f"no {family} model is served here; served are {', '.join(self.names)}")

    def _evict(self, wanted: str) -> None:
        """Evict the least recently used models while the loaded ones exceed the memory; never the default model."""
        while True:
            warm = {key: slot.served for key, slot in self._slots.items() if slot.served is not None}
            nbytes = sum(served.nbytes for served in warm.values())
            candidates = [key for key in warm if key not in (wanted, self.default)]
            if nbytes <= self.settings.model_bytes or not candidates:
                return
            oldest = min(candidates, key=lambda key: self._slots[key].used)
            logger.info("model %s is evicted to free memory", oldest)
            self._slots[oldest].served = None

    def _load(self, key: str, slot: _Slot) -> ServedModel:
        started = time.monotonic()
        config = {} if self.settings.precision is None else {"precision": self.settings.precision}
        source = slot.located or slot.entry.model or self._checkpoint(slot.entry)
        opened = open_model(source, self.settings.device, **config)
        settings, plain = self.settings, opened.engine.segmenter
        segmenter = BatchedSegmenter(
            plain,
            Batching(settings.batch_images, settings.batch_requests, settings.batch_wait, settings.in_flight * 4),
        )
        limits = self._limits(opened.engine.images.limits)
        engine = Engine(segmenter, ImageReader(limits), self.embeddings, settings.prompts)
        logger.info("model %s is warm after %.1f s", key, time.monotonic() - started)
        queues: dict[str, Batcher[Any, Any]] = {"encode": segmenter.encoder, "decode": segmenter.decoder}
        origin, starter = opened.describe(), opened.is_starter
        return ServedModel(
            key, engine, opened.defaults, plain.weights_nbytes, queues, origin, starter, settings.limits()
        )

    def _limits(self, limits: ImageLimits) -> ImageLimits:
        """Return a model's limits with those of the endpoint's settings over them."""
        settings = self.settings
        return replace(
            limits,
            max_pixels=settings.pixels,
            max_bytes=settings.image_bytes,
            urls=limits.urls and settings.urls,
            hosts=settings.known_hosts() or limits.hosts,
            fetch_seconds=settings.fetch_seconds,
        )

    def _checkpoint(self, entry: Entry) -> str:
        """Return a checkpoint of the catalog file: a folder beside the file if there is one, else the text as it is."""
        beside = self.settings.catalog.parent / str(entry.checkpoint)
        return str(beside.resolve()) if beside.exists() else str(entry.checkpoint)

    def _is_starter(self, slot: _Slot) -> bool:
        if slot.served is not None:
            return slot.served.starter
        return slot.entry.checkpoint is not None and is_starter(Path(self._checkpoint(slot.entry)))

    def describe(self) -> list[dict[str, Any]]:
        """Return what `/models` reports: each model, its names, whether it is warm, and where it came from."""
        return [
            {
                "name": key,
                "default": key == self.default,
                "starter": self._is_starter(slot),
                "warm": slot.served is not None,
                "bytes": slot.served.nbytes if slot.served else None,
                "names": [key, *slot.entry.names],
                "stands_in_for": slot.entry.stands_in_for,
                "origin": slot.served.origin if slot.served else None,
            }
            for key, slot in self._slots.items()
        ]


def _open_store(settings: EndpointSettings, device: str) -> Store | None:
    """Open the persistent store of embeddings. Raises BadModel for a URL that fsspec does not support."""
    url, key = settings.embedding_store, settings.embedding_store_key
    try:
        secret = key.get_secret_value().encode() if key else b""
        return Store(url, device, secret, settings.embedding_store_bytes) if url else None
    except (ValueError, ImportError, OSError) as error:
        raise BadModel(f"--embedding-store '{url}' cannot be used: {one_line(error)}") from None
