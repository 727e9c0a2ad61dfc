"""Health and metrics over HTTP: `/healthz` (the process answers), `/readyz` (it can do its work), `/metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from isthmus import __version__
from isthmus.admin.serving import WebService, tcp_socket
from isthmus.config import WebSettings
from isthmus.metrics import Metrics

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsCollector(Collector):
    """Shows `Metrics` in Prometheus' terms at each scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        version = GaugeMetricFamily("isthmus_build_info", "Version that runs", labels=("version",))
        version.add_metric((__version__,), 1)
        yield version
        for counter in self._metrics.counters():
            counted = CounterMetricFamily(counter.name, counter.text, labels=counter.labels)
            for labels, number in tuple(counter.values.items()):
                counted.add_metric(labels, number)
            yield counted
        for durations in self._metrics.durations():
            family = HistogramMetricFamily(durations.name, durations.text, labels=durations.labels)
            for labels, counts in tuple(durations.buckets.items()):
                family.add_metric(labels, _cumulative(durations.bounds, counts), durations.sums[labels])
            yield family
        for gauge in self._metrics.gauges():
            shown = GaugeMetricFamily(gauge.name, gauge.text, labels=gauge.labels)
            for labels, number in gauge.read().items():
                shown.add_metric(labels, number)
            yield shown


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    total, rows = 0, []
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        rows.append((bound, float(total)))
    return rows


class HealthAndMetrics:
    """Serves both on `config.web` between `start` and `stop`.

    Args:
        reasons: why the server is not ready, sentences; empty when it is.
    """

    def __init__(self, settings: WebSettings, metrics: Metrics, reasons: Callable[[], Sequence[str]]) -> None:
        self._settings = settings
        self._reasons = reasons
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(MetricsCollector(metrics))
        self.app = Starlette(
            routes=[
                Route("/healthz", self._live),
                Route("/readyz", self._ready),
                Route("/metrics", self._scrape),
            ]
        )
        self._service = WebService(self.app)
        self.bound: tuple[str, int] = ("", 0)

    async def start(self) -> None:
        """Listen; `bound` tells where (port 0 chooses one). Raises TransportError."""
        listening = tcp_socket(self._settings.host, self._settings.port, "web.port")
        host, port = listening.getsockname()[:2]
        self.bound = (str(host), int(port))
        await self._service.start(listening)

    async def stop(self) -> None:
        """Stop listening."""
        await self._service.stop()

    async def _live(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _ready(self, _: Request) -> Response:
        reasons = list(self._reasons())
        status = 503 if reasons else 200
        return JSONResponse({"status": "not ready" if reasons else "ok", "reasons": reasons}, status)

    async def _scrape(self, _: Request) -> Response:
        return Response(generate_latest(self._registry), headers={"content-type": _CONTENT_TYPE})
