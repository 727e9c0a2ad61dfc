"""Where answers go, as the topmost Via says (RFC 3261 section 18.2.2, RFC 3581), and the standard ports."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from isthmus.ports import Flow
from isthmus.sip.headers import Via

DEFAULT_PORT = 5060
DEFAULT_TLS_PORT = 5061


def answer_flow(via: Via, flow: Flow, flow_to: Callable[[str, int], Flow]) -> Flow:
    """Return the flow that answers to a UDP request take: always to the address it came from, never elsewhere.

    Args:
        via: the topmost one. Its `maddr` and a `received` written by the peer are ignored: they would let one host
            direct our answers at another.
        flow: where the request came from.
        flow_to: gives the flow from the receiving socket to another port of the peer.
    """
    port = via.port or DEFAULT_PORT
    if port == flow.remote_port or via.param("rport") is not None:
        return flow
    if via.host != flow.remote_host and not _is_same_address(via.host, flow.remote_host):
        # COMPAT: phones behind NAT without rport. Their Via port means nothing out here; the source port works.
        return flow
    return flow_to(flow.remote_host, port)


def _is_same_address(one: str, other: str) -> bool:
    if ":" not in one:
        return False
    try:
        return ip_address(one) == ip_address(other)
    except ValueError:
        return False
