"""What media a SIP device probably takes, before it has said so."""

from __future__ import annotations

from isthmus.model import MediaForm
from isthmus.services.delivery import Target, Way


def transport_of(way: Way) -> str:
    """Return the transport of a way, in lower case."""
    hop = way.next_hop
    if hop is not None and hop.flow is not None:
        return hop.flow.transport
    uri = hop.uri if hop is not None and hop.uri is not None else way.uri
    return (uri.param("transport") or "udp").lower()


def forms_of(target: Target) -> tuple[MediaForm, ...]:
    """Return the forms of media to try with a device, in order.

    A browser speaks WebRTC and nothing else. Of others nothing is known before they answer; a wrong guess costs a
    488 without ringing. Whoever signals over TLS wants encrypted media most likely.
    """
    transports = {transport_of(way) for way in target.ways}
    if not transports.isdisjoint(("ws", "wss")):
        return (MediaForm.WEBRTC,)
    if "tls" in transports:
        return (MediaForm.SDES, MediaForm.RTP, MediaForm.WEBRTC)
    return (MediaForm.RTP, MediaForm.SDES, MediaForm.WEBRTC)
