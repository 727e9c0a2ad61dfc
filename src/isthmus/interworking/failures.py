"""Why something did not happen, in the words of either realm (RFC 7247 section 7) and where we leave the RFC.

Deviations, all allowed by the RFC ("more an art than a science"):
1. 408 never answers a non-INVITE request (RFC 4320 section 4.2): 504 stands in.
2. 401 and 407 without a challenge are of no use: 403. A 6xx kills every fork of the caller's proxy: its 4xx sibling.
3. A call that bounces with `service-unavailable` finds nobody: 480.
4. The type of a stanza error follows from the SIP status.
5. An error is never answered with an error, and presence is never bounced.
503 is never sent: it would make the peer give up this whole server (RFC 7247 section 7.2).
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from isthmus.errors import AddressError, PeerError
from isthmus.interworking.addresses import address_from_jid, address_from_uri_text, address_to_jid, address_to_sip_uri
from isthmus.model import Failure, Origin
from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.stanza import element, escape_attribute, escape_text, local_name

# RFC 7247 section 7.1, table 2.
CONDITION_BY_STATUS: dict[int, str] = {
    300: "redirect",
    301: "gone",
    302: "redirect",
    305: "redirect",
    380: "not-acceptable",
    400: "bad-request",
    401: "not-authorized",
    402: "bad-request",
    403: "forbidden",
    404: "item-not-found",
    405: "feature-not-implemented",
    406: "not-acceptable",
    407: "registration-required",
    408: "remote-server-timeout",
    410: "gone",
    413: "policy-violation",
    414: "policy-violation",
    415: "not-acceptable",
    416: "not-acceptable",
    420: "feature-not-implemented",
    421: "not-acceptable",
    423: "resource-constraint",
    430: "recipient-unavailable",
    439: "feature-not-implemented",
    440: "policy-violation",
    480: "recipient-unavailable",
    481: "item-not-found",
    482: "not-acceptable",
    483: "not-acceptable",
    484: "item-not-found",
    485: "item-not-found",
    486: "recipient-unavailable",
    487: "recipient-unavailable",
    488: "not-acceptable",
    489: "policy-violation",
    491: "unexpected-request",
    493: "bad-request",
    500: "internal-server-error",
    501: "feature-not-implemented",
    502: "remote-server-not-found",
    503: "internal-server-error",
    504: "remote-server-timeout",
    505: "not-acceptable",
    513: "policy-violation",
    600: "recipient-unavailable",
    603: "recipient-unavailable",
    604: "item-not-found",
    606: "not-acceptable",
}
# RFC 7247 section 7.1: what an unknown code of each class means.
_CONDITION_BY_CLASS = {3: "redirect", 4: "bad-request", 5: "internal-server-error", 6: "recipient-unavailable"}

# RFC 7247 section 7.2, table 1: (asked for a full JID, asked for a bare JID).
STATUS_BY_CONDITION: dict[str, tuple[int, int]] = {
    "bad-request": (400, 400),
    "conflict": (400, 400),
    "feature-not-implemented": (405, 501),
    "forbidden": (403, 603),
    "gone": (410, 410),
    "internal-server-error": (500, 500),
    "item-not-found": (404, 604),
    "jid-malformed": (400, 400),
    "not-acceptable": (406, 606),
    "not-allowed": (403, 403),
    "not-authorized": (401, 401),
    "policy-violation": (403, 403),
    "recipient-unavailable": (480, 600),
    "redirect": (302, 302),
    "registration-required": (407, 407),
    "remote-server-not-found": (404, 404),
    "remote-server-timeout": (408, 408),
    "resource-constraint": (500, 500),
    "service-unavailable": (403, 403),
    "subscription-required": (400, 400),
    "undefined-condition": (400, 400),
    "unexpected-request": (491, 491),
}

# Deviation 2: the 4xx that says what a 6xx says, without ending other branches of the caller's proxy.
_GENTLE_STATUS = {600: 480, 603: 403, 604: 404, 606: 406, 607: 403, 608: 403}

_AUTH = frozenset({401, 407})
_WAIT = frozenset({408, 423, 480, 486, 491, 500, 502, 503, 504, 600})
_MODIFY = frozenset({400, 406, 413, 414, 415, 488, 606})

# What people read when the peer gave no text of its own.
_TEXT_BY_CONDITION = {
    "bad-request": "The request could not be understood.",
    "feature-not-implemented": "The other side does not support this.",
    "forbidden": "The other side does not permit this.",
    "gone": "This address is no longer in use.",
    "internal-server-error": "The other side had an internal error.",
    "item-not-found": "There is nobody at this address.",
    "not-acceptable": "The other side cannot take this content.",
    "not-allowed": "The other side does not permit this.",
    "not-authorized": "The other side requires authentication.",
    "policy-violation": "A rule of the other side forbids this.",
    "recipient-unavailable": "The recipient cannot be reached at the moment.",
    "redirect": "The recipient is to be reached at another address.",
    "registration-required": "The other side requires registration.",
    "remote-server-not-found": "The server of the recipient was not found.",
    "remote-server-timeout": "The server of the recipient did not answer in time.",
    "resource-constraint": "The other side is too busy.",
    "service-unavailable": "The recipient cannot be reached.",
}
_DEFAULT_TEXT = "The other side refused this."
# An error text is one sentence; the rest would only fill logs and screens.
_MAXIMUM_TEXT = 300

_REASONS = {
    301: "Moved Permanently",
    302: "Moved Temporarily",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    410: "Gone",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    480: "Temporarily Unavailable",
    486: "Busy Here",
    488: "Not Acceptable Here",
    491: "Request Pending",
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    504: "Server Time-out",
    600: "Busy Everywhere",
    603: "Decline",
    604: "Does Not Exist Anywhere",
    606: "Not Acceptable",
}


def condition_for_status(status: int) -> str:
    """Return the RFC 6120 condition for a SIP status; total over 300 to 699."""
    return CONDITION_BY_STATUS.get(status) or _CONDITION_BY_CLASS.get(status // 100, "undefined-condition")


def error_type_for_status(status: int) -> str:
    """Return the stanza error type ("auth", "wait", "modify", "cancel") for a SIP status (deviation 4)."""
    if status in _AUTH:
        return "auth"
    if status in _WAIT:
        return "wait"
    return "modify" if status in _MODIFY else "cancel"


def failure_from_sip(status: int, reason: str = "", *, contact: str = "") -> Failure:
    """Return what a final SIP response other than 2xx means.

    Args:
        status: 300 to 699.
        reason: its Reason-Phrase, shown to the sender.
        contact: URI of its first Contact; only 301 and 302 promise something by it.
    """
    condition = condition_for_status(status)
    if status == 301 and not contact:
        condition = "item-not-found"  # `gone` for a 301 MUST carry the new address: without one it says nothing
    return Failure(
        origin=Origin.TIMEOUT if status in (408, 504) else Origin.PEER,
        status=status,
        condition=condition,
        text=_sentence(reason, condition),
        is_temporary=error_type_for_status(status) == "wait",
        alternative=contact if status in (300, 301, 302, 305) else "",
    )


def failure_from_peer_error(error: PeerError) -> Failure:
    """Return the failure for something a peer did wrong (our own parsers and mappings raise these)."""
    origin = Origin.ADDRESS if isinstance(error, AddressError) else Origin.FORMAT
    return Failure(origin, error.status or 400, error.condition, str(error)[:_MAXIMUM_TEXT])


def failure_from_stanza_error(error: Element | None, is_full_jid: bool = False, *, is_call: bool = False) -> Failure:
    """Return what an `<error/>` child means (RFC 6120 section 8.3).

    Args:
        error: the child element; None when the peer left it out.
        is_full_jid: the failed stanza was addressed to a full JID: the failure is about one device.
        is_call: the failed stanza set up a call (deviation 3).
    """
    condition, text, alternative, kind = _read_error(error)
    status = STATUS_BY_CONDITION[condition][0 if is_full_jid else 1]
    if condition == "gone" and alternative:
        status = 301
    elif is_call and condition in ("service-unavailable", "recipient-unavailable"):
        status = 480
    return Failure(
        origin=Origin.TIMEOUT if condition == "remote-server-timeout" else Origin.PEER,
        status=status,
        condition=condition,
        text=_sentence(text, condition),
        is_temporary=kind == "wait" or (not kind and error_type_for_status(status) == "wait"),
        alternative=alternative,
    )


def _read_error(error: Element | None) -> tuple[str, str, str, str]:
    condition, text, alternative = "undefined-condition", "", ""
    if error is None:
        return condition, text, alternative, ""
    prefix = f"{{{ns.STANZA_ERRORS}}}"
    for part in error:
        if not part.tag.startswith(prefix):
            continue
        name = local_name(part.tag)
        if name == "text":
            text = part.text or ""
        elif name in STATUS_BY_CONDITION:
            condition = name
            if name in ("gone", "redirect"):
                alternative = (part.text or "").strip()
    return condition, text, alternative, error.get("type", "")


def _sentence(text: str, condition: str) -> str:
    cleaned = " ".join(text.split())[:_MAXIMUM_TEXT]
    return cleaned or _TEXT_BY_CONDITION.get(condition, _DEFAULT_TEXT)


def failure_to_sip(failure: Failure, method: str = "MESSAGE", *, is_only_target: bool = False) -> tuple[int, str]:
    """Return the final status and Reason-Phrase that tell a SIP client.

    Args:
        failure: what happened.
        method: method of the request that is answered; only INVITE may get 408.
        is_only_target: nobody else is tried for this request, so a 6xx harms no other branch.
    """
    status = failure.status
    if status in (401, 407):
        status = 403
    elif status == 408 and method != "INVITE":
        status = 504
    elif status == 503 or not 300 <= status <= 699:
        status = 500
    elif 300 <= status <= 399:
        status = _redirect_status(failure)
    elif status >= 600 and not is_only_target:
        status = _GENTLE_STATUS.get(status, 480)
    return status, _reason(status, failure.text)


def _redirect_status(failure: Failure) -> int:
    """A redirect is of use only with a place to go to; the caller of `failure_to_sip` adds it as Contact."""
    if failure.alternative and failure.status in (301, 302):
        return failure.status
    return 410 if failure.condition == "gone" else 480


def _reason(status: int, text: str) -> str:
    """A Reason-Phrase is one line of UTF-8; the text of the failure serves better than the standard phrase."""
    cleaned = " ".join(text.split())[:_MAXIMUM_TEXT]
    return cleaned or _REASONS.get(status, "Failed")


def contact_for_failure(failure: Failure) -> str:
    """Return the URI for the Contact of a 301 or 302: a `sip:` URI where the alternative can be mapped."""
    try:
        address, device = address_from_uri_text(failure.alternative)
    except AddressError:
        try:
            address, device = address_from_jid(failure.alternative)
        except AddressError:
            return failure.alternative
    return str(address_to_sip_uri(address, device))


def failure_to_stanza_error(failure: Failure) -> str:
    """Return the serialised `<error/>` child (RFC 6120 section 8.3.2)."""
    condition = failure.condition if failure.condition in STATUS_BY_CONDITION else condition_for_status(failure.status)
    inner = ""
    if condition in ("gone", "redirect") and failure.alternative:
        inner = escape_text(_xmpp_form(failure.alternative))
    text = ""
    if failure.text:
        text = element("text", {"xmlns": ns.STANZA_ERRORS, "xml:lang": "en"}, escape_text(failure.text))
    defined = element(condition, {"xmlns": ns.STANZA_ERRORS}, inner)
    return f"<error type='{error_type_for_status(failure.status)}'>{defined}{text}</error>"


def _xmpp_form(uri: str) -> str:
    try:
        address, _ = address_from_uri_text(uri)
    except AddressError:
        return uri
    return "xmpp:" + address_to_jid(address)


def bounce(stanza: Element, failure: Failure) -> str:
    """Return the error stanza that answers `stanza`, addresses swapped and id kept; "" where none may be sent.

    None answers an error, presence (deviation 5), or an IQ result.
    """
    kind = stanza.get("type", "")
    name = local_name(stanza.tag)
    if kind in ("error", "result") or name == "presence" or not stanza.get("from"):
        return ""
    identifier = f" id='{escape_attribute(stanza.get('id', ''))}'" if stanza.get("id") else ""
    return (
        f"<{name} type='error'{identifier} from='{escape_attribute(stanza.get('to', ''))}'"
        f" to='{escape_attribute(stanza.get('from', ''))}'>{failure_to_stanza_error(failure)}</{name}>"
    )
