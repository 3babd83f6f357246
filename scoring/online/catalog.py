"""The models behind the endpoint, by name: some warm at start, the rest loaded on first use."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from mlflow.models import Model
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from model import package
from model.contract import Params
from model.embeddings import Embeddings
from model.images import ImageLimits
from model.scorer import Scorer, Watch
from model.segmenter import Segmenter
from model.store import Store
from scoring import models
from scoring.online.batching import NOBODY, BatchedSegmenter, Batching, Gatherer, caller
from scoring.online.settings import Settings

logger = logging.getLogger(__name__)
# Names that clients of other systems ask for, by family.
WELL_KNOWN = {
    "sam": ["sam/vit_b", "sam/vit_l", "sam/vit_h"] + [f"facebook/sam-vit-{size}" for size in ("base", "large", "huge")],
    "sam2": [f"sam2/hiera_{size}" for size in ("tiny", "small", "b_plus", "large")]
    + [f"facebook/sam2{dot}-hiera-{size}" for dot in ("", ".1") for size in ("tiny", "small", "base-plus", "large")],
}


class UnknownModel(ValueError):
    """A name that is not in the catalog (HTTP 404, or 400 where a dialect says so)."""


class Entry(BaseModel):
    """One model of the catalog file."""

    model_config = ConfigDict(extra="forbid")
    checkpoint: str | None = None
    model: str | None = None
    warm: bool = False
    names: list[str] = []
    stands_in_for: list[str] = []

    @model_validator(mode="after")
    def _one_source(self) -> Entry:
        if (self.checkpoint is None) == (self.model is None):
            raise ValueError("expected one of `checkpoint` and `model`")
        return self


class CatalogFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")
    default: str
    models: dict[str, Entry]

    @model_validator(mode="after")
    def _names_are_unique(self) -> CatalogFile:
        if self.default not in self.models:
            raise ValueError(f"default '{self.default}' is not among the models {', '.join(self.models)}")
        taken: dict[str, str] = {}
        for key, entry in self.models.items():
            for name in (key, *entry.names, *entry.stands_in_for):
                if name in taken:
                    raise ValueError(f"'{name}' names both {taken[name]} and {key}")
                taken[name] = key
        return self


@dataclass
class Served:
    """One model that is ready: `name` is the catalog's, `params` what was packaged or deployed for requests that do not
    say, `pyfunc` MLflow's view of it, where it has one."""

    name: str
    scorer: Scorer
    nbytes: int
    queues: dict[str, Gatherer[Any, Any]]
    params: dict[str, Any] = field(default_factory=dict)
    pyfunc: Any = None

    def predict(self, table: pd.DataFrame, params: dict[str, Any]) -> pd.DataFrame:
        """The contract's answers to a table, as MLflow's view gives them, without its looking through the table first.
        Raises BadInput and BadParameter."""
        return self.scorer.score_frame(table, Params.read({**self.params, **params}))


@dataclass
class _Slot:
    entry: Entry
    lock: threading.Lock = field(default_factory=threading.Lock)
    served: Served | None = None
    used: float = 0.0


class Catalog:
    """Models by name. Safe to share between threads; a model that is put away stays usable for who still holds it."""

    def __init__(self, settings: Settings, watch: Watch = nullcontext) -> None:
        self.settings, self.watch = settings, watch
        device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        store = Store(settings.embedding_store, device) if settings.embedding_store else None
        self.embeddings = Embeddings(settings.embedding_bytes, store)
        described = self._read()
        self.default = described.default
        self._slots = {key: _Slot(entry) for key, entry in described.models.items()}
        self.ready = False
        self._keys: dict[str, str] = {}
        for key, entry in described.models.items():
            self._keys.update((name, key) for name in (key, *entry.names, *entry.stands_in_for))
        for key, entry in described.models.items():
            if entry.stands_in_for:
                logger.warning("%s stands in for %s", key, ", ".join(entry.stands_in_for))

    def _read(self) -> CatalogFile:
        if self.settings.model:
            metadata = Model.load(models.where(self.settings.model)).metadata or {}
            name = str(metadata.get("base_model", "model"))
            others = [other for other in WELL_KNOWN.get(str(metadata.get("family")), []) if other != name]
            entry = Entry(model=self.settings.model, warm=True, stands_in_for=others)
            return CatalogFile(default=name, models={name: entry})
        path = self.settings.catalog
        try:
            return CatalogFile.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError, ValidationError) as error:
            raise ValueError(f"catalog {path}: {error}") from None

    @property
    def names(self) -> list[str]:
        """Every name that is served."""
        return list(self._keys)

    def warm(self) -> list[Served]:
        """The models that are loaded now."""
        return [slot.served for slot in self._slots.values() if slot.served is not None]

    def warm_up(self) -> None:
        """Loads the default model and those marked warm; `ready` once all of them are. One that cannot be loaded is
        logged and keeps the endpoint from being ready, the others are served."""
        failed = False
        for key, slot in self._slots.items():
            if slot.entry.warm or key == self.default:
                try:
                    self.get(key)
                except Exception:
                    logger.exception("model %s cannot be loaded", key)
                    failed = True
        self.ready = not failed

    def get(self, name: str | None = None) -> Served:
        """The model of that name, the default without one; loaded when it is not warm. Raises UnknownModel."""
        key = self._keys.get(name or self.default)
        if key is None:
            raise UnknownModel(f"no model '{str(name)[:100]}' is served here; served are {', '.join(self.names)}")
        slot = self._slots[key]
        with slot.lock:
            slot.used = time.monotonic()
            if slot.served is None:
                slot.served = self._load(key, slot.entry)
            served = slot.served
        self._make_room(key)
        return served

    def of_family(self, family: str) -> str:
        """The name of a model of that family, the default's if it is one. Raises UnknownModel."""
        known = WELL_KNOWN.get(family, [])
        for key, slot in sorted(self._slots.items(), key=lambda item: item[0] != self.default):
            if slot.served is not None and slot.served.scorer.segmenter.family.name == family:
                return key
            if any(name in known for name in (*slot.entry.names, *slot.entry.stands_in_for)):
                return key
        raise UnknownModel(f"no {family} model is served here; served are {', '.join(self.names)}")

    def _make_room(self, wanted: str) -> None:
        """Puts away the least recently used models while the warm ones hold too much; never the default one."""
        while True:
            warm = {key: slot for key, slot in self._slots.items() if slot.served is not None}
            held = sum(slot.served.nbytes for slot in warm.values() if slot.served)
            spare = [key for key in warm if key not in (wanted, self.default)]
            if held <= self.settings.model_bytes or not spare:
                return
            oldest = min(spare, key=lambda key: warm[key].used)
            logger.info("model %s is put away to make room", oldest)
            warm[oldest].served = None

    def _load(self, key: str, entry: Entry) -> Served:
        began = time.monotonic()
        pyfunc = python_model = None
        if entry.model or key == self.default:
            pyfunc = self._pyfunc(entry)
            python_model = pyfunc.unwrap_python_model()
            plain, limits = python_model.scorer.segmenter, python_model.scorer.limits
        else:
            plain, limits = Segmenter.load(self._source(entry), **self._how()), None
        settings = self.settings
        batching = Batching(settings.batch_images, settings.batch_requests, settings.batch_wait, settings.in_flight * 4)
        limits = limits or ImageLimits()
        limits = replace(
            limits,
            max_pixels=settings.pixels,
            urls=limits.urls and settings.urls,
            hosts=settings.known_hosts() or limits.hosts,
            fetch_seconds=settings.fetch_seconds,
        )
        segmenter = BatchedSegmenter(plain, batching)
        scorer = Scorer(
            segmenter, self.embeddings.scoped(plain.family.fingerprint()), limits, self._stage, settings.prompts
        )
        params: dict[str, Any] = {}
        if python_model is not None:
            python_model.scorer, params = scorer, python_model.with_defaults({})
        nbytes = sum(weight.numel() * weight.element_size() for weight in plain.family.model.parameters())
        logger.info("model %s is warm after %.1f s", key, time.monotonic() - began)
        queues: dict[str, Gatherer[Any, Any]] = {"encode": segmenter.encoder, "decode": segmenter.decoder}
        return Served(key, scorer, nbytes, queues, params, pyfunc)

    def _stage(self, name: str) -> AbstractContextManager[Any]:
        """One stage of the work, which is not begun for who has hung up. Raises Gone."""
        caller.get(NOBODY).check()
        return self.watch(name)

    def _source(self, entry: Entry) -> str:
        """A checkpoint of the file: a folder beside it where there is one."""
        beside = self.settings.catalog.parent / str(entry.checkpoint)
        return str(beside.resolve()) if beside.exists() else str(entry.checkpoint)

    def _pyfunc(self, entry: Entry) -> Any:
        if entry.model:
            return models.load(entry.model, **self._how())
        with tempfile.TemporaryDirectory() as folder:
            saved = package.save(self._source(entry), Path(folder) / "model")
            return models.load(str(saved), **self._how())

    def _how(self) -> dict[str, Any]:
        """What the settings say of how models are loaded."""
        said = {"device": self.settings.device, "precision": self.settings.precision}
        return {name: value for name, value in said.items() if value is not None}

    def described(self) -> list[dict[str, Any]]:
        """What `/models` answers: each model, its names, and whether it is warm."""
        return [
            {
                "name": key,
                "default": key == self.default,
                "warm": slot.served is not None,
                "bytes": slot.served.nbytes if slot.served else None,
                "names": [key, *slot.entry.names],
                "stands_in_for": slot.entry.stands_in_for,
            }
            for key, slot in self._slots.items()
        ]
