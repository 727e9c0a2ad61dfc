"""Whom to ring among consumers: what their devices announce decides how (XEP-0353, or a session each)."""

from __future__ import annotations

from isthmus.model import MediaForm
from isthmus.services.calls.jingle.consumer_legs import ConsumerLegs
from isthmus.services.calls.leg import Leg
from isthmus.services.calls.ringing import Invitation, Ring


class JingleRinger:
    """Finds the devices of consumers (`ringing.Ringer`)."""

    def __init__(self, legs: ConsumerLegs) -> None:
        self._legs = legs

    async def rings(self, invitation: Invitation) -> list[Ring]:
        """Return one ring for all devices that take proposals, and one for each that takes sessions alone."""
        legs = await self._legs.legs_to(invitation.callee, invitation.caller)
        return [_ring(leg) for leg in legs[: invitation.breadth]]


def _ring(leg: Leg) -> Ring:
    # Every client that makes calls over XMPP speaks ICE and DTLS-SRTP and nothing else.
    return Ring(lambda _form: leg, (MediaForm.WEBRTC,))
