"""Figures for Prometheus."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from framewake.errors import UnwritableError
from framewake.service.desk import Desk
from framewake.service.guard import App, Receive, Scope, Send
from framewake.service.tables import STATES

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Jobs(Collector):
    """Counted in the database when somebody asks, so that every server says the same."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def describe(self) -> Iterator[Metric]:
        """Nothing: the database is not asked before somebody wants the figures."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Jobs by state, workers, and room on the disk."""
        counts = self.desk.store.counts()
        states = GaugeMetricFamily("framewake_jobs", "Videos by state.", labels=["state"])
        for state in STATES:
            states.add_metric([state], counts.get(state, 0))
        yield states
        yield GaugeMetricFamily("framewake_workers", "Living workers.", value=len(self.desk.presence.alive()))
        with contextlib.suppress(UnwritableError):  # a folder that has gone has no figure
            free = self.desk.storage.free()
            yield GaugeMetricFamily("framewake_disk_free_bytes", "Room in the data folder.", value=free)


class Figures:
    """A registry of this server's own."""

    def __init__(self, desk: Desk) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(Jobs(desk))
        self.seconds = Histogram(
            "framewake_request_seconds",
            "Time until a request's answer begins.",
            ["method", "path", "status"],
            registry=self.registry,
            buckets=BUCKETS,
        )


class Timed:
    """An ASGI middleware that measures requests by route, never by id; unknown methods do not come so far."""

    def __init__(self, app: App, *, figures: Figures) -> None:
        self.app = app
        self.figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on and measure."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.perf_counter()

        async def timed(message: Any) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                path = getattr(route, "path", "other")
                seconds = time.perf_counter() - begin
                self.figures.seconds.labels(scope["method"], path, str(message["status"])).observe(seconds)
            await send(message)

        await self.app(scope, receive, timed)
