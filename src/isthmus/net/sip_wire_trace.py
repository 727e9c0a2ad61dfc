"""Wire lines of the trace: one per SIP message, without bodies and credentials unless the operator wants bodies."""

from __future__ import annotations

import re

from isthmus.ports import Flow
from isthmus.trace import Trace

# However lines end (the trace shows what is malformed as well): credentials always, and the subject, which people
# write like the body; each with the lines it is folded over.
_FIELD = r"(?:^|(?<=[\r\n]))({})[ \t]*:[^\r\n]*(?:(?:\r\n|\r|\n)[ \t][^\r\n]*)*"
_CREDENTIALS = re.compile(_FIELD.format("(?:Proxy-)?Authorization"), re.IGNORECASE)
_SUBJECT = re.compile(_FIELD.format("Subject|s"), re.IGNORECASE)
# Whatever follows an empty line may be what somebody wrote.
_END_OF_HEAD = re.compile(rb"\r?\n[ \t]*\r?\n|\r\r")
_CALL_ID = re.compile(r"^(?:Call-ID|i)[ \t]*:[ \t]*(\S+)", re.IGNORECASE | re.MULTILINE)
_PEOPLE = re.compile(
    r"^(?:From|To|f|t)[ \t]*:[^\r\n]*?\bsips?:([^\s@;<>\"]+@[^\s;:?<>\",]+)", re.IGNORECASE | re.MULTILINE
)


class WireTrace:
    """Tells the trace about messages; the caller checks `trace.is_listened_to` first, so that silence is free."""

    def __init__(self, trace: Trace, *, has_bodies: bool) -> None:
        self.trace = trace
        self._has_bodies = has_bodies

    def note(self, mark: str, flow: Flow, data: bytes) -> None:
        """Write one line.

        Args:
            mark: `>` sent, `<` received, `!` not a message.
            flow: where to or from.
            data: the whole message.
        """
        head, *rest = _END_OF_HEAD.split(data, maxsplit=1)
        body = rest[0] if rest else b""
        text = _CREDENTIALS.sub(r"\1: (left out)", head.decode(errors="replace"))
        if not self._has_bodies:
            text = _SUBJECT.sub(r"\1: (left out)", text)
        if body and self._has_bodies:
            text += "\r\n\r\n" + body.decode(errors="replace")
        elif body:
            text += f"\r\n\r\n({len(body)} octets of body left out)"
        call_id = _CALL_ID.search(text)
        self.trace.wire(
            mark,
            f"sip {flow.transport} {flow.remote_host}:{flow.remote_port}",
            text,
            call_id=call_id[1] if call_id is not None else "",
            people=tuple(dict.fromkeys(match[1].lower() for match in _PEOPLE.finditer(text))),
        )
