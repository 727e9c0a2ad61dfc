"""How a business user is reached: devices, flows, paths, neighbours; the best of several answers."""

from __future__ import annotations

import pytest

from isthmus.errors import RequestTimeoutError, TransportError
from isthmus.model import Address
from isthmus.ports import Flow
from isthmus.services.delivery import NoWayError, Outcome, Way, best_response
from isthmus.sip.message import SipRequest, SipResponse
from tests.support.messaging_house import ANA, PAT, House
from tests.support.sip import TCP_PHONE, sip_request


def build(way: Way) -> SipRequest:
    return sip_request("OPTIONS", str(way.uri), sender="sip:isthmus@corp.test")


async def test_nobody_registered_is_told_at_once() -> None:
    house = await House().open()
    with pytest.raises(NoWayError):
        await house.delivery.send(ANA, build)


async def test_a_request_goes_back_over_the_flow_it_was_registered_on() -> None:
    """STANDARDS 3.4: a private Contact is never dialled."""
    house = await House().open()
    nat = Flow("udp", "203.0.113.7", 40123)
    await house.register(contact="<sip:ana@192.168.1.5:5060>", flow=nat)
    await house.delivery.send(ANA, build)
    sent = house.endpoint.sent[-1]
    assert str(sent.request.uri) == "sip:ana@192.168.1.5:5060"
    assert sent.next_hop is not None
    assert sent.next_hop.flow == nat


async def test_after_a_restart_a_dialable_contact_is_dialled_anew() -> None:
    house = await House().open()
    await house.register(contact="<sip:ana@192.0.2.10:5070;transport=tcp>", flow=TCP_PHONE)
    again = await house.crash().open()
    await again.delivery.send(ANA, build)
    hop = again.endpoint.sent[-1].next_hop
    assert hop is not None
    assert (hop.flow, str(hop.uri)) == (None, "sip:ana@192.0.2.10:5070;transport=tcp")


async def test_the_path_of_the_registration_becomes_the_route() -> None:
    """RFC 3327 section 5.3."""
    house = await House().open()
    await house.register(headers=[("Path", "<sip:edge.test;lr>, <sip:inner.test;lr>")])
    await house.delivery.send(ANA, build)
    sent = house.endpoint.sent[-1]
    assert sent.request.headers.get_all("Route") == ["<sip:edge.test;lr>", "<sip:inner.test;lr>"]
    assert sent.next_hop is None


async def test_devices_are_asked_in_the_order_of_their_preference() -> None:
    house = await House().open()
    await house.register(contact="<sip:ana@192.0.2.11>;q=0.1")
    await house.register(contact="<sip:ana@192.0.2.12>;q=0.9")
    assert [str(target.ways[0].uri) for target in house.delivery.targets(ANA)] == [
        "sip:ana@192.0.2.12",
        "sip:ana@192.0.2.11",
    ]


async def test_the_best_answer_of_several_devices_wins() -> None:
    house = await House().open()
    await house.register(contact="<sip:ana@192.0.2.11>")
    await house.register(contact="<sip:ana@192.0.2.12>")
    house.endpoint.script(486, 200)
    assert (await house.delivery.send(ANA, build)).status == 200
    house.endpoint.script(486, RequestTimeoutError("no answer"))
    assert (await house.delivery.send(ANA, build)).status == 486
    house.endpoint.script(TransportError("x"), RequestTimeoutError("no answer"))
    with pytest.raises(RequestTimeoutError):
        await house.delivery.send(ANA, build)


@pytest.mark.parametrize(
    ("statuses", "best"),
    [([486, 200], 200), ([404, 603], 603), ([503, 486], 486), ([302, 480], 302), ([500, 503], 500)],
)
def test_best_response(statuses: list[int], best: int) -> None:
    outcomes: list[Outcome] = [SipResponse(status) for status in statuses]
    assert best_response([*outcomes, TransportError("gone")]).status == best


async def test_an_overloaded_neighbour_is_replaced_by_the_next() -> None:
    house = await House().open()
    house.endpoint.script(503, 200)
    assert (await house.delivery.send(PAT, build)).status == 200
    assert len(house.endpoint.sent) == 2


async def test_a_refusal_of_a_neighbour_is_final() -> None:
    house = await House().open()
    house.endpoint.script(404)
    assert (await house.delivery.send(PAT, build)).status == 404
    assert len(house.endpoint.sent) == 1


async def test_who_can_be_reached() -> None:
    house = await House().open()
    assert not house.delivery.can_reach(ANA)
    assert house.delivery.can_reach(PAT)
    assert house.delivery.targets(Address("zoe", "corp.test")) == ()
