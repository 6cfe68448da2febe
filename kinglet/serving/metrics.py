"""What Prometheus reads: requests, errors, durations, what is under way, sizes of batches, the model's version."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from kinglet.serving.served_model import ServedModel

CONTENT_TYPE = CONTENT_TYPE_LATEST
# From a tenth of a millisecond to ten seconds.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
# Batches that are noted and not counted, at most.
MOST_BATCHES = 256


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self, model: ServedModel) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "kinglet_requests", "Requests answered.", ["route", "method", "status"], registry=self.registry
        )
        self._errors = Counter(
            "kinglet_errors", "Requests refused or failed, by code.", ["route", "code"], registry=self.registry
        )
        self._seconds = Histogram(
            "kinglet_request_duration_seconds",
            "From a request's headers to its answer.",
            ["route"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self.in_flight = Gauge("kinglet_requests_in_flight", "Requests being answered now.", registry=self.registry)
        self._batch_size = Histogram(
            "kinglet_batch_size", "Images per call of the runtime.", registry=self.registry, buckets=BATCH_SIZES
        )
        self.lost_log_lines = Counter(
            "kinglet_lost_log_lines", "Lines that could not be written to the log.", registry=self.registry
        )
        self.unmonitored_images = Counter(
            "kinglet_unmonitored_images", "Images that came too fast to be sketched.", registry=self.registry
        )
        self.lost_monitor_answers = Counter(
            "kinglet_lost_monitor_answers", "Answers that could not be kept for labels to come.", registry=self.registry
        )
        self.failed_monitor_writes = Counter(
            "kinglet_failed_monitor_writes", "Times that a sketch could not be written.", registry=self.registry
        )
        self._connections = Gauge("kinglet_connections", "Open connections.", registry=self.registry)
        self._queued = Gauge(
            "kinglet_queue_length", "Tasks that wait for a worker or are with one.", registry=self.registry
        )
        Gauge(
            "kinglet_model_info",
            "The model that is served.",
            ["model", "version", "runtime", "file"],
            registry=self.registry,
        ).labels(model.name, model.version, model.predictor.runtime, model.predictor.model_file).set(1)
        ProcessCollector(registry=self.registry)
        # Batches that are not counted yet: counting one takes longer than noting it.
        self._batches: deque[int] = deque()
        # Looking a child up takes as long as counting it.
        self._counted: dict[tuple[str, str, int], Callable[[float], None]] = {}

    def count(self, route: str, method: str, status: int, code: str, seconds: float) -> None:
        """Count one request. route: the path's pattern, not the path. code: "" for a good answer."""
        key = (route, method, status)
        counted = self._counted.get(key)
        if counted is None:
            counted = self._counted[key] = self._counter_of(*key)
        counted(seconds)
        if code:
            self._errors.labels(route, code).inc()

    def _counter_of(self, route: str, method: str, status: int) -> Callable[[float], None]:
        requests, durations = self._requests.labels(route, method, str(status)), self._seconds.labels(route)

        def count(seconds: float) -> None:
            requests.inc()
            durations.observe(seconds)

        return count

    def note_batch(self, images: int) -> None:
        """Note one call of the runtime; from any thread."""
        self._batches.append(images)
        if len(self._batches) >= MOST_BATCHES:
            self._count_batches()

    def _count_batches(self) -> None:
        with suppress(IndexError):  # another thread may have taken the last
            while self._batches:
                self._batch_size.observe(self._batches.popleft())

    def watch(self, connections: Callable[[], float], queued: Callable[[], float]) -> None:
        """Ask these for the numbers of open connections and of queued tasks whenever the metrics are read."""
        self._connections.set_function(connections)
        self._queued.set_function(queued)

    def exposition(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        self._count_batches()
        return generate_latest(self.registry)
