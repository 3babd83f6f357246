"""The endpoint's metrics in the format of Prometheus, which reads them at `/metrics`."""

from __future__ import annotations

from collections.abc import Sized
from contextlib import AbstractContextManager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from sam_endpoint.model.budget import MemoryBudget
from sam_endpoint.scoring.online.catalog import Catalog

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters, gauges and histograms of one endpoint.

    Attributes:
        registry: registry of all metrics.
        requests: number of answered requests, by route and status.
        seconds: duration of requests in seconds, by route.
        stages: duration of the stages of the work in seconds, by stage.
        in_flight: number of requests in progress.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"namespace": "sam", "registry": self.registry}
        self.requests = Counter("requests", "number of answered requests", ["route", "status"], **named)
        self.seconds = Histogram(
            "request_seconds",
            "seconds from the headers of a request to the last byte of its response",
            ["route"],
            buckets=SECONDS,
            **named,
        )
        self.stages = Histogram(
            "stage_seconds",
            "seconds of each stage of the work: parse, fetch, decode, encode, detect, prompt, mask, render",
            ["stage"],
            buckets=SECONDS,
            **named,
        )
        self.in_flight = Gauge("requests_in_flight", "number of requests in progress", **named)

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Return a context manager that times one stage of the work. A `Call` enters it around the stage.

        Args:
            name: name of the stage: parse, fetch, decode, encode, prompt, mask or render.
        """
        return self.stages.labels(name).time()

    def watch_memory(self, memory: MemoryBudget) -> None:
        """Add a metric of the memory that the requests in progress hold.

        Args:
            memory: the requests' memory budget; it is read whenever the metrics are read.
        """
        gauge = Gauge(
            "memory_bytes",
            "bytes of memory that the requests in progress hold",
            namespace="sam",
            registry=self.registry,
        )
        gauge.set_function(lambda: memory.held)

    def watch_sessions(self, sessions: Sized) -> None:
        """Add a metric of the number of open sessions for tracking."""
        gauge = Gauge("track_sessions", "open sessions for tracking", namespace="sam", registry=self.registry)
        gauge.set_function(lambda: len(sessions))

    def watch_catalog(self, catalog: Catalog) -> None:
        """Add metrics of the loaded models, their queues and the embedding cache.

        Args:
            catalog: the catalog; it is read whenever the metrics are read.
        """
        self.registry.register(_CatalogCollector(catalog))

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self.registry)


class _CatalogCollector:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def collect(self) -> Any:
        embeddings = self.catalog.embeddings
        lookups = CounterMetricFamily(
            "sam_embedding_lookups",
            "number of lookups in the embedding cache, by whether the embedding was cached",
            labels=["kept"],
        )
        lookups.add_metric(["yes"], embeddings.lookups[True])
        lookups.add_metric(["no"], embeddings.lookups[False])
        yield lookups
        yield GaugeMetricFamily("sam_embedding_bytes", "bytes of cached embeddings", embeddings.nbytes)
        weights = GaugeMetricFamily("sam_model_bytes", "bytes of the weights of each loaded model", labels=["model"])
        waiting = GaugeMetricFamily("sam_queue", "number of items that wait for a batch", labels=["model", "kind"])
        for served in self.catalog.loaded():
            weights.add_metric([served.name], served.nbytes)
            for kind, batcher in served.queues.items():
                waiting.add_metric([served.name, kind], batcher.waiting)
        yield weights
        yield waiting
