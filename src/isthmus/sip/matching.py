"""What makes messages belong together: transaction keys, the fingerprint of merged requests, and the ACK and CANCEL
that share the branch of their INVITE."""

from __future__ import annotations

from typing import Any

from isthmus.errors import SipParseError
from isthmus.sip.headers import MAGIC_COOKIE, Headers, Via
from isthmus.sip.message import SipRequest, SipResponse


def client_key(via: Via, method: str) -> str:
    """Return what a response is matched by: our branch and the method of CSeq (RFC 3261 section 17.1.3)."""
    return f"{via.branch} {method}"


def server_key(request: SipRequest, via: Via, method: str) -> str:
    """Return what a request is matched by (RFC 3261 section 17.2.3); `method` is INVITE for the ACK of a failure.

    Raises:
        SipParseError: an RFC 2543 request lacks a field that identifies it.
    """
    branch = via.branch
    if branch.startswith(MAGIC_COOKIE) and len(branch) > len(MAGIC_COOKIE):
        return f"{branch} {via.host}:{via.port} {method}"
    # RFC 2543 peers, and peers that send the bare cookie: all that identifies the request, and the top Via. The To
    # tag is left out for INVITE, because its ACK carries the one of our response.
    to_tag = "" if method == "INVITE" else request.to_address.tag
    return "\n".join(
        (
            method,
            str(request.uri),
            to_tag,
            request.from_address.tag,
            request.call_id,
            str(request.cseq.number),
            f"{via.transport} {via.host}:{via.port}",
            # What we add to the Via ourselves is left out: CANCEL looks its INVITE up after that.
            *(f"{name}={value}" for name, value in via.params if name not in {"received", "rport"}),
        )
    )


def fingerprint(request: SipRequest) -> int:
    """Return a hash of From tag, Call-ID and CSeq, by which a request that reached us over two paths is recognised
    (RFC 3261 section 8.2.2.2); 0 when it is in a dialog, or too malformed to tell.

    A 64-bit keyed hash instead of the text: it stands for some 100 bytes, 160,000 times over.
    """
    try:
        from_tag = request.from_address.tag
        if not from_tag or request.to_address.tag:
            return 0
        cseq = request.cseq
        return hash((from_tag, request.call_id, cseq.number, cseq.method))
    except SipParseError:
        return 0  # the transaction user will refuse it


def complete_via(request: SipRequest, via: Via, flow: Any) -> None:
    """Note in the top Via where the request really came from (RFC 3261 section 18.2.1, RFC 3581 section 4)."""
    host = flow.remote_host
    is_rport_wanted = has_received = False
    for name, _ in via.params:
        if name == "rport":
            is_rport_wanted = True
        elif name == "received":
            has_received = True
    if not is_rport_wanted and not has_received and via.host == host:
        return
    # Built by hand: this runs for nearly every request of a peer on UDP.
    params = [
        (name, str(flow.remote_port) if name == "rport" else value) for name, value in via.params if name != "received"
    ]
    params.append(("received", host))
    request.set_top_via(Via(via.transport, via.host, via.port, tuple(params)))


def build_ack(invite: SipRequest, response: SipResponse) -> SipRequest:
    """Build the ACK of a failure response to our INVITE (RFC 3261 section 17.1.1.3): To is that of the response."""
    return _build_sibling(invite, "ACK", response.headers.get("To") or "")


def build_cancel(invite: SipRequest, reason: str = "") -> SipRequest:
    """Build the CANCEL of our INVITE (RFC 3261 section 9.1), with a Reason if there is one (RFC 3326)."""
    cancel = _build_sibling(invite, "CANCEL", invite.headers.get("To") or "")
    if reason:
        cancel.headers.add("Reason", reason)
    return cancel


def _build_sibling(invite: SipRequest, method: str, to: str) -> SipRequest:
    # Both go the way of the INVITE hop by hop: same branch, same Route, same CSeq number.
    headers = Headers([("Via", str(invite.top_via)), ("Max-Forwards", "70")])
    for route in invite.headers.get_all("Route"):
        headers.add("Route", route)
    headers.add("From", invite.headers.get("From") or "")
    headers.add("To", to)
    headers.add("Call-ID", invite.call_id)
    headers.add("CSeq", f"{invite.cseq.number} {method}")
    return SipRequest(method, invite.uri, headers)
