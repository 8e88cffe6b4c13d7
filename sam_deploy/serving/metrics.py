"""Prometheus metrics of a server, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sam_deploy.serving.batching import Ran

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """All of a server's. Requests are counted by model, protocol and the code they ended with."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        by_model = ["model"]

        def histogram(name: str, said: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, said, by_model, registry=registry, buckets=buckets)

        self._requests = Counter(
            "sam_requests", "Inference requests", [*by_model, "protocol", "code"], registry=registry
        )
        self._latency = histogram("sam_request_seconds", "From request to answer", _SECONDS)
        self.queue = histogram("sam_queue_seconds", "In the queue", _SECONDS)
        self.compute = histogram("sam_compute_seconds", "A batch in its engine", _SECONDS)
        self.rows = histogram("sam_batch_rows", "Rows of a batch", _ROWS)
        self.queued = Gauge("sam_queued", "Requests that wait", by_model, registry=registry)
        self.restarts = Counter(
            "sam_restarts", "What died and was started again", ["model", "what"], registry=registry
        )
        self.swaps = Counter(
            "sam_swaps", "New versions put in place", ["model", "outcome"], registry=registry
        )

    def requested(self, model: str, protocol: str, code: str, seconds: float) -> None:
        """A request ended; `model` is one that is served, or "" for all others."""
        self._requests.labels(model, protocol, code).inc()
        self._latency.labels(model).observe(seconds)

    def of(self, model: str) -> ModelMetrics:
        """Those of one model."""
        return ModelMetrics(self, model)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)


class ModelMetrics:
    """Those of the model `name`, over all its versions."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._name, self._metrics = name, metrics
        self._queue = metrics.queue.labels(name)
        self._compute = metrics.compute.labels(name)
        self._rows = metrics.rows.labels(name)
        for what in ("worker", "batcher"):
            metrics.restarts.labels(name, what)  # 0 is there to be seen

    def answered(self, ran: Ran) -> None:
        """A request ran."""
        self._queue.observe(ran.queue_ns / 1e9)

    def ran(self, rows: int, compute_ns: int) -> None:
        """A batch ran."""
        self._rows.observe(rows)
        self._compute.observe(compute_ns / 1e9)

    def restarted(self, what: str) -> None:
        """A worker or a batcher was started again."""
        self._metrics.restarts.labels(self._name, what).inc()

    def swapped(self, outcome: str) -> None:
        """A new version was taken, or refused."""
        self._metrics.swaps.labels(self._name, outcome).inc()

    def watch_queue(self, queued: Callable[[], int]) -> None:
        """Ask `queued` whenever metrics are read."""
        self._metrics.queued.labels(self._name).set_function(queued)
