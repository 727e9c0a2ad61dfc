"""Health and metrics, as a monitoring system reads them."""

from __future__ import annotations

import socket

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from isthmus.admin.web import HealthAndMetrics
from isthmus.config import WebSettings
from isthmus.errors import TransportError
from isthmus.metrics import MAXIMUM_LABEL_SETS, Metrics


async def get(web: HealthAndMetrics, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web.app), base_url="http://isthmus") as client:
        return await client.get(path)


async def scrape(metrics: Metrics) -> dict[str, float]:
    text = (await get(HealthAndMetrics(WebSettings(), metrics, list), "/metrics")).text
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_counters_gauges_and_durations_are_shown_in_prometheus_terms() -> None:
    metrics = Metrics()
    metrics.messages_accepted.add("to-consumer")
    metrics.messages_accepted.add("to-consumer", by=2)
    metrics.message_delivery.observe(0.02, "to-business")
    metrics.message_delivery.observe(120.0, "to-business")
    metrics.watch("isthmus_registrations", "Bindings now", lambda: 7)
    metrics.watch("isthmus_link_up", "Links", lambda: {("corp.test",): 1.0}, ("domain",))
    shown = await scrape(metrics)
    assert shown["isthmus_messages_accepted_total[('direction', 'to-consumer')]"] == 3
    assert shown["isthmus_message_delivery_seconds_bucket[('direction', 'to-business'), ('le', '0.025')]"] == 1
    assert shown["isthmus_message_delivery_seconds_bucket[('direction', 'to-business'), ('le', '+Inf')]"] == 2
    assert shown["isthmus_message_delivery_seconds_count[('direction', 'to-business')]"] == 2
    assert shown["isthmus_registrations[]"] == 7
    assert shown["isthmus_link_up[('domain', 'corp.test')]"] == 1


def test_invented_labels_cannot_grow_the_scrape() -> None:
    metrics = Metrics()
    for number in range(MAXIMUM_LABEL_SETS + 50):
        metrics.refusals.add(f"rule{number}")
    assert len(metrics.refusals.values) == MAXIMUM_LABEL_SETS + 1
    assert metrics.refusals.value("other") == 50


def test_a_counter_used_with_the_wrong_labels_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="takes the labels"):
        Metrics().refusals.add("one", "two")


async def test_the_process_is_live_but_not_ready_while_something_is_missing() -> None:
    reasons = ["corp.test is not connected to the XMPP server"]
    web = HealthAndMetrics(WebSettings(), Metrics(), lambda: reasons)
    assert (await get(web, "/healthz")).json() == {"status": "ok"}
    answer = await get(web, "/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, reasons)
    reasons.clear()
    assert (await get(web, "/readyz")).status_code == 200


async def test_a_taken_port_is_told_with_the_setting_to_change() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = WebSettings(port=taken.getsockname()[1])
        with pytest.raises(TransportError, match=r"change web\.port"):
            await HealthAndMetrics(settings, Metrics(), list).start()


async def test_it_serves_on_a_free_port_and_stops() -> None:
    web = HealthAndMetrics(WebSettings(port=0), Metrics(), list)
    await web.start()
    assert web.bound[1] > 0
    await web.stop()
