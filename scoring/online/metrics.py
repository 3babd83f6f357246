"""What operators watch, as Prometheus reads it at `/metrics`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from scoring.online.catalog import Catalog

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counts and times of one endpoint."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"namespace": "sam", "registry": self.registry}
        self.requests = Counter("requests", "requests answered", ["route", "status"], **named)
        self.seconds = Histogram(
            "request_seconds", "from first byte in to last byte out", ["route"], buckets=SECONDS, **named
        )
        self.stages = Histogram(
            "stage_seconds", "fetch, decode, encode, prompt, render", ["stage"], buckets=SECONDS, **named
        )
        self.in_flight = Gauge("requests_in_flight", "requests being answered", **named)

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Times one stage of the work, for `Scorer.watch`."""
        return self.stages.labels(name).time()

    def follow(self, catalog: Catalog) -> None:
        """Also tells what the catalog and the cache of embeddings hold, whenever it is read."""
        self.registry.register(_Held(catalog))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Held:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def collect(self) -> Any:
        embeddings = self.catalog.embeddings
        found = CounterMetricFamily(
            "sam_embedding_lookups", "images asked about, by whether theirs was kept", labels=["kept"]
        )
        found.add_metric(["yes"], embeddings.found[True])
        found.add_metric(["no"], embeddings.found[False])
        yield found
        yield GaugeMetricFamily("sam_embedding_bytes", "bytes of kept embeddings", embeddings.nbytes)
        warm = GaugeMetricFamily("sam_model_bytes", "bytes of the weights of warm models", labels=["model"])
        waiting = GaugeMetricFamily("sam_queue", "items that wait for a batch", labels=["model", "kind"])
        for served in self.catalog.warm():
            warm.add_metric([served.name], served.nbytes)
            for kind, gatherer in served.queues.items():
                waiting.add_metric([served.name, kind], gatherer.waiting)
        yield warm
        yield waiting
