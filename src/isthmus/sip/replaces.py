"""Replaces: this call takes the place of that dialog (RFC 3891)."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.errors import SipParseError
from isthmus.sip.headers import parse_parameterised
from isthmus.sip.message import SipRequest
from isthmus.sip.syntax import is_token

OPTION_TAG = "replaces"
# A header field of this kind holds one Call-ID and two tags; Call-IDs of real peers stay below 100 characters.
_LONGEST = 1_024


@dataclass(frozen=True, slots=True)
class Replaces:
    """A Replaces header field (section 6.1), in the view of the one who receives it.

    Attributes:
        call_id: of the dialog.
        to_tag: the receiver's own tag.
        from_tag: the tag of the receiver's peer.
        is_early_only: only a dialog that was not answered may be replaced.
    """

    call_id: str
    to_tag: str
    from_tag: str
    is_early_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Replaces:
        """Read the header field. Raises SipParseError (400) when it is malformed or names a tag twice."""
        if len(text) > _LONGEST:
            raise SipParseError("Replaces is too long")
        call_id, parameters = parse_parameterised(text)
        names = [name for name, _ in parameters]
        tags = {name: value or "" for name, value in parameters}
        if len(call_id.split()) != 1 or names.count("to-tag") != 1 or names.count("from-tag") != 1:
            raise SipParseError("Replaces needs a Call-ID, a to-tag and a from-tag")
        if not is_token(tags["to-tag"]) or not is_token(tags["from-tag"]):
            raise SipParseError("a tag in Replaces is not a token")
        return cls(call_id, tags["to-tag"], tags["from-tag"], "early-only" in tags)

    def __str__(self) -> str:
        early = ";early-only" if self.is_early_only else ""
        return f"{self.call_id};to-tag={self.to_tag};from-tag={self.from_tag}{early}"


def replaces_of(request: SipRequest) -> Replaces | None:
    """Return what an INVITE wants to replace, or None.

    Raises:
        SipParseError: 400, malformed; or with Join, which contradicts it (section 3, RFC 3911 section 4).
    """
    text = request.headers.get("replaces")
    if text is None:
        return None
    if "join" in request.headers:
        raise SipParseError("Replaces and Join in one request")
    return Replaces.parse(text)
