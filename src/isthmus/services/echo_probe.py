"""The doctor's round trip: a message to the echo address that must come back with the same text (edge case 48)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What became of one probe.

    Attributes:
        has_returned: the echo came back with the text that was sent.
        seconds: how long it took, or was waited.
        detail: what was seen, or who refused and why.
        is_tried: False when the configuration has nothing to try it with.
    """

    has_returned: bool
    seconds: float
    detail: str
    is_tried: bool = True


class EchoProbe(Protocol):
    """Sends a message from `doctor@<business domain>` to `echo@<business domain>` and waits for the answer."""

    async def round_trip(self, direction: str) -> ProbeResult:
        """Try one way in, and the way back out.

        Args:
            direction: "sip" enters as a SIP MESSAGE at our own listener, "xmpp" as a stanza through the XMPP server.
        """
