"""Metrics of the endpoint, which Prometheus reads at `/metrics`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from sam_endpoint.model.budget import MemoryBudget
from sam_endpoint.scoring.online.catalog import Catalog

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters and timers of one endpoint."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"namespace": "sam", "registry": self.registry}
        self.requests = Counter("requests", "requests answered", ["route", "status"], **named)
        self.seconds = Histogram(
            "request_seconds", "from first byte in to last byte out", ["route"], buckets=SECONDS, **named
        )
        self.stages = Histogram(
            "stage_seconds", "parse, fetch, decode, encode, prompt, mask, render", ["stage"], buckets=SECONDS, **named
        )
        self.in_flight = Gauge("requests_in_flight", "requests being answered", **named)

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Return the timer of one stage of the work, for `Call`."""
        return self.stages.labels(name).time()

    def watch_memory(self, memory: MemoryBudget) -> None:
        """Also report how much memory requests hold, whenever the metrics are read."""
        gauge = Gauge("memory_bytes", "bytes that requests hold", namespace="sam", registry=self.registry)
        gauge.set_function(lambda: memory.held)

    def follow(self, catalog: Catalog) -> None:
        """Also report what the catalog and the embedding cache hold, whenever the metrics are read."""
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
            "sam_embedding_lookups", "images asked about, by whether theirs was kept", labels=["kept"]
        )
        lookups.add_metric(["yes"], embeddings.lookups[True])
        lookups.add_metric(["no"], embeddings.lookups[False])
        yield lookups
        yield GaugeMetricFamily("sam_embedding_bytes", "bytes of kept embeddings", embeddings.nbytes)
        warm = GaugeMetricFamily("sam_model_bytes", "bytes of the weights of warm models", labels=["model"])
        waiting = GaugeMetricFamily("sam_queue", "items that wait for a batch", labels=["model", "kind"])
        for served in self.catalog.warm():
            warm.add_metric([served.name], served.nbytes)
            for kind, batcher in served.queues.items():
                waiting.add_metric([served.name, kind], batcher.waiting)
        yield warm
        yield waiting
