"""How a call ended, in the words of SIP (status, Reason of RFC 3326 with Q.850) and of Jingle (XEP-0166 section 7.4).

No standard has this table; it follows the reasons that real clients send and show. Both directions are total.
"""

from __future__ import annotations

from typing import NamedTuple

from isthmus.model import EndCause, Ending, Failure, Origin


class EndingRow(NamedTuple):
    """One cause in both realms.

    Attributes:
        status: final SIP status before the call is answered.
        q850: cause of ITU-T Q.850 for the Reason header; 0 where none fits.
        reason: element of XEP-0166 section 7.4.
        text: what people read when the peer gave no text.
    """

    status: int
    q850: int
    reason: str
    text: str


_C = EndCause

ENDINGS: dict[EndCause, EndingRow] = {
    _C.HUNG_UP: EndingRow(487, 16, "success", "The call was ended."),
    _C.CANCELLED: EndingRow(487, 0, "cancel", "The caller gave up."),
    # A cancel and not a success, or the client would tell of a call that was missed (RFC 3326 section 3.1).
    _C.ANSWERED_ELSEWHERE: EndingRow(487, 0, "cancel", "The call was answered on another device."),
    _C.BUSY: EndingRow(486, 17, "busy", "The person called is busy."),
    _C.DECLINED: EndingRow(603, 21, "decline", "The call was declined."),
    _C.NO_ANSWER: EndingRow(480, 19, "timeout", "Nobody answered."),
    _C.UNREACHABLE: EndingRow(480, 20, "timeout", "The person called cannot be reached at the moment."),
    _C.NOT_FOUND: EndingRow(404, 1, "gone", "There is nobody at this address."),
    _C.GONE: EndingRow(410, 22, "gone", "This address is no longer in use."),
    _C.FORBIDDEN: EndingRow(403, 21, "decline", "This call is not permitted."),
    _C.MEDIA_MISMATCH: EndingRow(488, 88, "incompatible-parameters", "The two devices have no media in common."),
    _C.SECURITY: EndingRow(488, 88, "security-error", "The two devices do not agree on encryption."),
    _C.CONNECTIVITY: EndingRow(480, 41, "connectivity-error", "The connection broke."),
    _C.EXPIRED: EndingRow(480, 102, "expired", "The other side was not heard of any more."),
    _C.TRANSFERRED: EndingRow(487, 16, "success", "The call was transferred."),
    _C.LOOP: EndingRow(482, 25, "general-error", "The call came round in a loop."),
    _C.OVERLOADED: EndingRow(480, 42, "general-error", "No more calls can be taken at the moment."),
    _C.FAILED: EndingRow(500, 41, "general-error", "Something went wrong on the way."),
}

# What a final response to an INVITE means; classes stand in for what is not listed.
_CAUSE_BY_STATUS: dict[int, EndCause] = {
    **dict.fromkeys((401, 403, 407, 607, 608), _C.FORBIDDEN),
    **dict.fromkeys((404, 484, 485, 604), _C.NOT_FOUND),
    410: _C.GONE,
    **dict.fromkeys((486, 600), _C.BUSY),
    603: _C.DECLINED,
    **dict.fromkeys((408, 504), _C.NO_ANSWER),
    **dict.fromkeys((430, 480, 502, 503), _C.UNREACHABLE),
    487: _C.CANCELLED,
    **dict.fromkeys((406, 415, 488, 606), _C.MEDIA_MISMATCH),
    **dict.fromkeys((493, 494), _C.SECURITY),
    **dict.fromkeys((482, 483), _C.LOOP),
}
_CAUSE_BY_CLASS = {3: _C.UNREACHABLE, 4: _C.FAILED, 5: _C.FAILED, 6: _C.UNREACHABLE}

# XEP-0166 section 7.4, every element.
_CAUSE_BY_REASON: dict[str, EndCause] = {
    "alternative-session": _C.UNREACHABLE,
    "busy": _C.BUSY,
    "cancel": _C.CANCELLED,
    "connectivity-error": _C.CONNECTIVITY,
    "decline": _C.DECLINED,
    "expired": _C.EXPIRED,
    "failed-application": _C.MEDIA_MISMATCH,
    "failed-transport": _C.CONNECTIVITY,
    "general-error": _C.FAILED,
    "gone": _C.GONE,
    "incompatible-parameters": _C.MEDIA_MISMATCH,
    "media-error": _C.MEDIA_MISMATCH,
    "security-error": _C.SECURITY,
    "success": _C.HUNG_UP,
    "timeout": _C.NO_ANSWER,
    "unsupported-applications": _C.MEDIA_MISMATCH,
    "unsupported-transports": _C.MEDIA_MISMATCH,
}

# The 4xx that says what a 6xx says without ending the other branches of a caller's proxy (RFC 3261 section 16.7).
_GENTLE_STATUS = {603: 480, 600: 486, 604: 404, 606: 488}


def text_of(ending: Ending) -> str:
    """Return the sentence for people."""
    return ending.text or ENDINGS[ending.cause].text


def ending_from_status(status: int, reason: str = "", *, contact: str = "") -> Ending:
    """Return what a final response (300 to 699) to an INVITE means.

    Args:
        status: of the response.
        reason: its Reason-Phrase, or better the text of its Warning.
        contact: URI of its first Contact, for a redirect.
    """
    cause = _CAUSE_BY_STATUS.get(status) or _CAUSE_BY_CLASS.get(status // 100, _C.FAILED)
    origin = Origin.TIMEOUT if cause is _C.NO_ANSWER else Origin.PEER
    return Ending(cause, reason[:300], origin, status=status, alternative=contact if status // 100 == 3 else "")


def ending_from_jingle(reason: str, text: str = "") -> Ending:
    """Return what the `<reason/>` of a session-terminate means; an unknown or absent one is an ordinary end."""
    cause = _CAUSE_BY_REASON.get(reason, _C.HUNG_UP)
    return Ending(cause, text[:300], Origin.TIMEOUT if cause is _C.NO_ANSWER else Origin.PEER)


def ending_from_failure(failure: Failure) -> Ending:
    """Return the ending for something that was refused before it became a call (policy, limits, stanza errors)."""
    cause = {
        Origin.POLICY: _C.FORBIDDEN,
        Origin.LIMIT: _C.OVERLOADED,
        Origin.NO_DEVICE: _C.UNREACHABLE,
    }.get(failure.origin)
    if cause is None:
        cause = ending_from_status(failure.status).cause
    return Ending(cause, failure.text, failure.origin, failure.rule, alternative=failure.alternative)


def ending_to_status(ending: Ending, *, is_only_target: bool = True) -> tuple[int, str]:
    """Return the final status and Reason-Phrase that refuse an INVITE.

    Args:
        ending: why.
        is_only_target: nobody else is tried for this INVITE, so that a 6xx harms no other branch.
    """
    status = ENDINGS[ending.cause].status
    if not is_only_target:
        status = _GENTLE_STATUS.get(status, status)
    return status, _phrase(text_of(ending))


def ending_to_reason_header(ending: Ending) -> str:
    """Return the value of Reason (RFC 3326) for a CANCEL or BYE; "" where there is nothing to add."""
    if ending.cause is _C.ANSWERED_ELSEWHERE:
        # RFC 3326 section 3.1 and what phones look for to not show a missed call.
        return 'SIP;cause=200;text="Call completed elsewhere"'
    row = ENDINGS[ending.cause]
    text = _phrase(text_of(ending)).replace("\\", "").replace('"', "'")
    return f'Q.850;cause={row.q850};text="{text}"' if row.q850 else ""


def ending_to_jingle(ending: Ending) -> tuple[str, str]:
    """Return the reason element's name and text of a session-terminate."""
    row = ENDINGS[ending.cause]
    return row.reason, ending.text


def ending_from_reason_header(value: str) -> Ending | None:
    """Return what the Reason of a CANCEL or BYE says, or None when it says nothing we know."""
    compact = value.replace(" ", "").lower()
    if compact.startswith("sip;") and "cause=200" in compact:
        return Ending(_C.ANSWERED_ELSEWHERE)
    if compact.startswith("q.850;"):
        for part in compact.split(";"):
            if part.startswith("cause=") and part[6:].isdigit():
                return _ending_of_q850(int(part[6:]))
    return None


# Q.850 causes that several rows share, and those of other exchanges, in the order they are looked at.
_CAUSE_BY_Q850 = {
    1: _C.NOT_FOUND,
    16: _C.HUNG_UP,
    17: _C.BUSY,
    18: _C.NO_ANSWER,
    19: _C.NO_ANSWER,
    20: _C.UNREACHABLE,
    21: _C.DECLINED,
    22: _C.GONE,
    31: _C.HUNG_UP,
    38: _C.CONNECTIVITY,
    41: _C.CONNECTIVITY,
    42: _C.OVERLOADED,
    88: _C.MEDIA_MISMATCH,
    102: _C.EXPIRED,
}


def _ending_of_q850(cause: int) -> Ending | None:
    found = _CAUSE_BY_Q850.get(cause)
    return None if found is None else Ending(found)


def _phrase(text: str) -> str:
    return " ".join(text.split())[:200]
