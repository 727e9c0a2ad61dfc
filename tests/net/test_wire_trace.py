"""The trace shows what crossed and keeps what people wrote, and how they prove who they are, to itself."""

from __future__ import annotations

import pytest

from isthmus.net.sip_wire_trace import WireTrace
from isthmus.ports import Flow
from isthmus.trace import Trace, TraceLine

FLOW = Flow("udp", "192.0.2.1", 5060)
MESSAGE = (
    "MESSAGE sip:ben@people.test SIP/2.0\r\nFrom: <sip:ana@corp.test>;tag=1\r\nTo: <sip:ben@people.test>\r\n"
    'Authorization: Digest username="ana",\r\n response="c0ffee"\r\nSubject: private\r\n matters\r\nCall-ID: c1\r\n'
    "Content-Length: 7\r\n\r\nprivate"
)


def traced(data: str, *, has_bodies: bool = False) -> TraceLine:
    trace = Trace(lambda: 0.0)
    lines: list[TraceLine] = []
    trace.listen(lines.append)
    WireTrace(trace, has_bodies=has_bodies).note("<", FLOW, data.encode())
    (line,) = lines
    return line


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_neither_words_nor_credentials_are_shown_however_lines_end(end: str) -> None:
    line = traced(MESSAGE.replace("\r\n", end))
    assert "c0ffee" not in line.text
    assert "private" not in line.text
    assert "matters" not in line.text
    assert "MESSAGE sip:ben@people.test" in line.text


def test_the_rest_is_there_to_be_read() -> None:
    line = traced(MESSAGE)
    assert "Call-ID: c1" in line.text
    assert "(7 octets of body left out)" in line.text
    assert (line.call_id, line.people) == ("c1", ("ana@corp.test", "ben@people.test"))


def test_an_operator_may_ask_for_bodies_and_never_for_credentials() -> None:
    line = traced(MESSAGE, has_bodies=True)
    assert line.text.endswith("\r\n\r\nprivate")
    assert "Subject: private" in line.text
    assert "c0ffee" not in line.text
