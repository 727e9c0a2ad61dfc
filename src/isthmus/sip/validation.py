"""What a well-formed message must also keep before anybody acts on it (RFC 3261 sections 8.1.1, 8.1.3.3 and 8.2).

`check_request` and `check_response` are called once, at the edge, before a transaction is made. What passed them has
typed properties that do not raise. What needs knowledge of the server (401, 405, 415, 420, 501) is decided there;
`unsupported_options` and `accepts` do the reading for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from isthmus.errors import SipParseError
from isthmus.sip.fields import MAGIC_COOKIE, NameAddr
from isthmus.sip.message import MAXIMUM_MAX_FORWARDS, SipRequest, SipResponse
from isthmus.sip.syntax import is_token, parameter, parse_number
from isthmus.sip.uri import OtherUri, SipUri

__all__ = ["accepts", "check_request", "check_response", "has_option", "unsupported_options"]

# At most one line each (RFC 3261 table 2/3, "multi01" of RFC 4475). Which of two is meant nobody can tell, and a
# filter before us may have looked at the other one (edge case 43).
SINGLE_FIELDS = frozenset(
    {
        "call-id",
        "content-disposition",
        "content-type",
        "cseq",
        "date",
        "event",
        "expires",
        "from",
        "max-breadth",
        "max-forwards",
        "mime-version",
        "min-expires",
        "min-se",
        "rack",
        "refer-to",
        "referred-by",
        "replaces",
        "retry-after",
        "rseq",
        "session-expires",
        "sip-etag",
        "sip-if-match",
        "subscription-state",
        "timestamp",
        "to",
        "user-to-user",
    }
)
_MANDATORY = frozenset({"from", "to", "call-id", "cseq", "via"})
# From and To as nearly everybody writes them. They are parsed without an error for certain, and who gets a response
# does not look at them: it is matched by Via and CSeq.
_PLAIN_PERSON = re.compile(r"<sips?:[A-Za-z0-9._\-]+@[A-Za-z0-9._\-]+>(?:;tag=[A-Za-z0-9._\-]+)?")
# Parsed when they are there, which they are not in the requests that come by the thousand.
_SELDOM = frozenset({"contact", "route", "record-route", "event", "refer-to", "referred-by"})


def check_request(request: SipRequest) -> None:
    """Check everything about a request that does not depend on who we are.

    Raises:
        SipParseError: with the status to answer: 400, or 416 for a Request-URI of a scheme that is not SIP. Unknown
            schemes that the caller can route (`tel:`) must be handled before.
    """
    _check_lines(request)
    if request.top_via.branch == MAGIC_COOKIE:
        # Nothing after the cookie would make all requests of this peer one transaction (RFC 4475 section 3.3.6).
        raise SipParseError("the branch of the topmost Via is empty")
    cseq = request.cseq
    if cseq.method != request.method:
        raise SipParseError("the method of CSeq is not the method of the request")
    _check_call_id(request.call_id)
    _check_people(request)
    first = request.headers.first
    if "max-forwards" in first and request.max_forwards is None:
        raise SipParseError(f"Max-Forwards is not a number up to {MAXIMUM_MAX_FORWARDS}")
    if "content-type" in first:
        _ = request.content_type
    if not _SELDOM.isdisjoint(first):
        _check_seldom(request)
    _check_request_uri(request.uri)


def _check_lines(message: SipRequest | SipResponse) -> None:
    first = message.headers.first
    if len(first) != len(message.headers.lines):
        keys = [key for key, _, _ in message.headers.lines]
        for key in SINGLE_FIELDS & first.keys():
            if keys.count(key) > 1:
                raise SipParseError(f"there are two {key} header fields")
    if not first.keys() >= _MANDATORY:
        raise SipParseError(f"the header field {min(_MANDATORY - first.keys())} is missing")


def _check_call_id(call_id: str) -> None:
    # word [ "@" word ] (RFC 3261 section 25.1): any visible characters, but no blanks, which would not survive a log
    # or a Replaces header field.
    if len(call_id.split()) != 1:
        raise SipParseError("the Call-ID holds a blank")


def _check_people(request: SipRequest) -> None:
    to_address = request.to_address
    # RFC 2543 peers send no From tag (RFC 4475 inv2543), but a tag that is there must be one.
    for address in (request.from_address, to_address):
        if address.params:
            tag = parameter(address.params, "tag")
            if tag is not None and not is_token(tag):
                raise SipParseError("a tag is not a token")
    if request.method == "REGISTER" and isinstance(to_address.uri, OtherUri):
        # The address of record is what the registrar keeps: it must be one of ours (RFC 4475 unksm2).
        raise SipParseError("the address of record of a REGISTER is not a SIP URI")


def _check_seldom(request: SipRequest) -> None:
    """Parse every list of addresses that is there, and Event, so that nobody meets a broken one later."""
    headers = request.headers
    if "contact" in headers:
        _ = request.contacts
    if "route" in headers:
        _ = request.routes
    if "record-route" in headers:
        _ = request.record_routes
    if "event" in headers:
        _ = request.event
    for key in ("refer-to", "referred-by"):
        value = headers.get(key)
        if value is not None:
            NameAddr.parse(value)


def _check_request_uri(uri: SipUri | OtherUri) -> None:
    if isinstance(uri, OtherUri):
        raise SipParseError(f"the scheme {uri.scheme!r} is not supported", status=416)
    if uri.headers:
        # RFC 3261 section 19.1.1 forbids them there; taken for real they would inject header fields (escruri).
        raise SipParseError("the Request-URI holds header fields")


def check_response(response: SipResponse) -> None:
    """Check a response before it is matched to a transaction.

    Raises:
        SipParseError: always with status 0: a bad response is dropped (RFC 4475 scalarlg, bcast).
    """
    try:
        _check_lines(response)
        if len(response.vias) != 1:
            # RFC 3261 section 8.1.3.3: misrouted or corrupted, it was not for a user agent.
            raise SipParseError("a response must arrive with exactly one Via")
        _ = response.cseq
        first = response.headers.first
        if _PLAIN_PERSON.fullmatch(first["from"]) is None:
            _ = response.from_address
        if _PLAIN_PERSON.fullmatch(first["to"]) is None:
            _ = response.to_address
        retry_after = response.headers.get("retry-after")
        if retry_after is not None and parse_number(retry_after.partition(";")[0].partition("(")[0], 2**32 - 1) is None:
            raise SipParseError("Retry-After is not a number of seconds")
    except SipParseError as error:
        raise SipParseError(str(error), status=0) from error


def unsupported_options(request: SipRequest, supported: Collection[str], field: str = "Require") -> list[str]:
    """Return the option tags a request requires and we lack; for 420 and its Unsupported (section 8.2.2.3).

    Args:
        request: the request; CANCEL and ACK never get a 420, for them the list is empty.
        supported: option tags we support, lower-case.
        field: "Require", or "Proxy-Require" when acting as a proxy.
    """
    if field not in request.headers or request.method in ("CANCEL", "ACK"):
        return []
    return [tag for tag in request.headers.get_list(field) if tag.lower() not in supported]


def has_option(message: SipRequest | SipResponse, tag: str, *fields: str) -> bool:
    """Tell whether an option tag stands in one of these header fields, by default Supported or Require."""
    for name in fields or ("supported", "require"):
        if name in message.headers:
            try:
                if tag in {element.strip().lower() for element in message.headers.get_list(name)}:
                    return True
            except SipParseError:
                continue  # a list that cannot be read names nothing
    return False


def accepts(request: SipRequest, media_type: str, default: str = "application/sdp") -> bool:
    """Tell whether the sender takes `media_type` in the answer (Accept, RFC 3261 section 20.1).

    Args:
        request: the request.
        media_type: lower-case, without parameters.
        default: what an absent Accept means; it depends on the method or event package.
    """
    if "accept" not in request.headers:
        return media_type == default
    major = media_type.partition("/")[0]
    wanted = {element.partition(";")[0].strip().lower() for element in request.headers.get_list("accept")}
    return not wanted.isdisjoint({media_type, f"{major}/*", "*/*"})
