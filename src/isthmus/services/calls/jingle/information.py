"""What a session-info says (XEP-0167 section 8, XEP-0181, XEP-0251)."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.errors import AddressError
from isthmus.interworking.addresses import address_from_jid
from isthmus.model import Address
from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.jingle import Jingle
from isthmus.xmpp.jingle_rtp import session_info_of

KEEP_ALIVE = ""
RINGING = "ringing"
DIGIT = "dtmf"
TRANSFER = "transfer"

_DIGITS = frozenset("0123456789*#ABCD")
# RFC 4733 section 2.5.1.3: keys are held for some 100 ms; nobody holds one for a minute.
DEFAULT_MILLISECONDS = 100
MAXIMUM_MILLISECONDS = 60_000


@dataclass(frozen=True, slots=True)
class Information:
    """One piece of information.

    Attributes:
        kind: name of the element; KEEP_ALIVE for none.
        digit, milliseconds: of DIGIT.
        target: of TRANSFER.
    """

    kind: str
    digit: str = ""
    milliseconds: int = 0
    target: Address | None = None


def information_of(jingle: Jingle) -> Information | None:
    """Return what a session-info says, None when it is nothing we know (XEP-0166 section 7.2.9)."""
    if len(jingle.xml) == 0:
        return Information(KEEP_ALIVE)
    known = session_info_of(jingle)
    if known:
        return Information(known)
    digit = jingle.xml.find(f"{{{ns.JINGLE_DTMF}}}dtmf")
    if digit is not None:
        return _digit(digit.get("code", "").upper(), digit.get("duration", ""))
    transfer = jingle.xml.find(f"{{{ns.JINGLE_TRANSFER}}}transfer")
    if transfer is not None:
        return _transfer(transfer.get("to", ""))
    return None


def _digit(code: str, duration: str) -> Information | None:
    if code not in _DIGITS:
        return None
    milliseconds = int(duration) if duration.isdigit() and len(duration) < 9 else DEFAULT_MILLISECONDS
    return Information(DIGIT, code, min(milliseconds, MAXIMUM_MILLISECONDS))


def _transfer(target: str) -> Information | None:
    try:
        return Information(TRANSFER, target=address_from_jid(target)[0])
    except AddressError:
        return None
