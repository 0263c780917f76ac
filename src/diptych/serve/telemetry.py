"""What a server tells of itself: counters for Prometheus, and one line of JSON for each request."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

LOG = logging.getLogger("diptych.serve")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Telemetry:
    """Counters of one server; each has its own, so that several may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "diptych_requests", "Requests answered.", ("path", "method", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "diptych_request_seconds", "Time to answer.", ("path",), buckets=_SECONDS, registry=self.registry
        )
        self.active = Gauge("diptych_requests_active", "Requests in work.", registry=self.registry)
        self.batches = Histogram(
            "diptych_batch_items", "Items computed together.", ("kind",), buckets=_SIZES, registry=self.registry
        )
        self.pictures = Gauge("diptych_index_pictures", "Pictures in the index.", registry=self.registry)

    def count_batch(self, kind: str) -> Callable[[int], None]:
        """Return what is told the size of each batch of a kind."""
        return self.batches.labels(kind).observe

    def page(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = record.args if isinstance(record.args, dict) else {}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.msg,
            **fields,
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_lines() -> None:
    """Write the log as lines of JSON on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name in ("diptych.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    LOG.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
