"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from mtl.predict.many import Asked
    from mtl.serve.service import Service

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "mtl_requests",
            "HTTP requests by path and status",
            ["path", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "mtl_request_seconds",
            "from request to answer",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.rows = Counter(
            "mtl_rows", "encoded rows that were answered", ["entry"], registry=registry
        )
        self.batch_rows = Histogram(
            "mtl_batch_rows", "encoded rows per batch", buckets=_ROWS, registry=registry
        )
        self.batch_entries = Histogram(
            "mtl_batch_entries", "different entries per batch", buckets=_ROWS, registry=registry
        )
        self._queue = Gauge("mtl_queue_rows", "encoded rows that wait", registry=registry)
        self._loaded = Gauge("mtl_entries_loaded", "entries in memory", registry=registry)
        self._served = Gauge("mtl_entries_served", "entries that are answered", registry=registry)
        self._bytes = Gauge(
            "mtl_entries_bytes", "memory of entries beside the encoder", registry=registry
        )

    def watch(self, service: Service) -> None:
        """Have the gauges read from ``service`` whenever they are asked for."""
        self._queue.set_function(lambda: service.batcher.waiting)
        self._loaded.set_function(lambda: len(service.models.entries))
        self._served.set_function(lambda: len(service.served))
        self._bytes.set_function(lambda: service.models.bytes)

    def batch(self, asked: Sequence[Asked]) -> None:
        """A batch that is about to be answered."""
        total = 0
        for item in asked:
            rows = len(item.encoded) * item.encoded.choices
            self.rows.labels(item.ref).inc(rows)
            total += rows
        self.batch_rows.observe(total)
        self.batch_entries.observe(len({item.ref for item in asked}))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
