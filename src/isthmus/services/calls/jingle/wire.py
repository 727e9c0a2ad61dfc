"""How Jingle leaves us: IQs whose answers are told, and messages, in the order they were handed in."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from isthmus.errors import LinkDownError, RequestTimeoutError
from isthmus.interworking.call_endings import ending_from_failure
from isthmus.interworking.failures import failure_from_stanza_error
from isthmus.interworking.jingle_message import Finish, JingleMessage, Retract, jingle_message_to_stanza
from isthmus.model import EndCause, Ending, Failure, Origin
from isthmus.ports import XmppLink
from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.jingle import Jingle, jingle_iq
from isthmus.xmpp.stanza import child, element, local_name

# Sessions that ended while the XMPP server was away; as many as there can be in one domain of some size.
MAXIMUM_OWED = 1_000
# A phone that wakes up on push answers within some seconds; after this the person hears that nobody is there.
ANSWER_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class IqOutcome:
    """What became of an IQ of ours.

    Attributes:
        failure: what its error said; None for a result and where no answer came.
        condition: of XEP-0166 section 10, "" when there is none.
        is_lost: the link to the server was down, or was lost before the answer.
        is_unanswered: nobody answered in time.
    """

    failure: Failure | None = None
    condition: str = ""
    is_lost: bool = False
    is_unanswered: bool = False

    @property
    def is_result(self) -> bool:
        """True when it was taken."""
        return self.failure is None and not self.is_lost and not self.is_unanswered

    @property
    def is_tie_break(self) -> bool:
        """The peer's own action goes first (XEP-0166 section 7.2.16)."""
        return self.condition == "tie-break"

    @property
    def is_unknown_session(self) -> bool:
        """The peer knows the session no more."""
        return self.condition == "unknown-session"

    @property
    def is_not_implemented(self) -> bool:
        """The peer does not know this action. COMPAT: stanza 12 says bad-request."""
        return self.failure is not None and self.failure.condition in ("feature-not-implemented", "bad-request")

    @property
    def ending(self) -> Ending:
        """How a leg ends for which this was fatal."""
        if self.is_lost:
            return Ending(EndCause.CONNECTIVITY, "The XMPP server cannot be reached.", Origin.LOCAL)
        if self.failure is None:
            return Ending(EndCause.UNREACHABLE, origin=Origin.TIMEOUT)
        if self.is_unknown_session:
            return Ending(EndCause.CONNECTIVITY, "The other side does not know of this call any more.")
        return ending_from_failure(self.failure)


Answered = Callable[[IqOutcome], None]


class JingleWire:
    """Writes to the links of our domains; one task per stanza keeps the order and waits for the answer.

    Args:
        links: component links by domain.
        new_id: makes ids that nobody can guess.
    """

    def __init__(self, links: Mapping[str, XmppLink], *, new_id: Callable[[], str] | None = None) -> None:
        self._links = links
        self.new_id = new_id or (lambda: secrets.token_hex(16))
        self._owed: dict[str, deque[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def is_up(self, domain: str) -> bool:
        """True while the component of this domain is connected."""
        link = self._links.get(domain)
        return link is not None and link.is_connected

    def request(self, jingle: Jingle, domain: str, sender: str, recipient: str, answered: Answered) -> None:
        """Send an action and call `answered` once with what became of it."""
        stanza_id = self.new_id()
        iq = jingle_iq(jingle, sender=sender, recipient=recipient, stanza_id=stanza_id)
        is_end = jingle["action"] == "session-terminate"

        def told(outcome: IqOutcome, _answer: Element | None) -> None:
            if outcome.is_lost and is_end:
                self._owe(domain, iq)  # or the device would ring, or talk, to nobody
            answered(outcome)

        self._spawn(self._ask(domain, iq, stanza_id, ANSWER_SECONDS, told))

    def ping(self, domain: str, sender: str, recipient: str, answered: Answered) -> None:
        """Ask whether somebody is still there (XEP-0199)."""
        stanza_id = self.new_id()
        addresses = {"type": "get", "id": stanza_id, "from": sender, "to": recipient}
        iq = element("iq", addresses, "<ping xmlns='urn:xmpp:ping'/>")
        self._spawn(self._ask(domain, iq, stanza_id, ANSWER_SECONDS, lambda outcome, _: answered(outcome)))

    async def query(self, domain: str, sender: str, recipient: str, payload: str, seconds: float) -> Element | None:
        """Send an IQ get and return its result, None when there is none within `seconds`."""
        stanza_id = self.new_id()
        iq = element("iq", {"type": "get", "id": stanza_id, "from": sender, "to": recipient}, payload)
        found: list[Element | None] = []
        await self._ask(domain, iq, stanza_id, seconds, lambda _, answer: found.append(answer))
        return found[0]

    def say(self, message: JingleMessage, domain: str, sender: str, recipient: str) -> None:
        """Send a message about a proposal."""
        stanza_id = returned_id(message)
        stanza = jingle_message_to_stanza(message, sender=sender, recipient=recipient, stanza_id=stanza_id)
        self.tell(domain, stanza, is_owed=isinstance(message, Retract | Finish))

    def tell(self, domain: str, stanza: str, *, is_owed: bool = False) -> None:
        """Send a message or presence.

        Args:
            domain: whose link.
            stanza: serialised.
            is_owed: a device would ring or wait for ever without it: while the link is down it is kept.
        """
        self._spawn(self._write(domain, stanza, is_owed=is_owed))

    def link_up(self, domain: str) -> None:
        """Send what is owed since the link was lost; whom it does not concern any more, answers with an error."""
        for stanza in self._owed.pop(domain, ()):
            self.tell(domain, stanza)

    def _owe(self, domain: str, stanza: str) -> None:
        self._owed.setdefault(domain, deque(maxlen=MAXIMUM_OWED)).append(stanza)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        # Tasks begin in the order they were made, so what is handed in first is written first.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, domain: str, stanza: str, *, is_owed: bool) -> None:
        link = self._links.get(domain)
        try:
            if link is not None:
                link.send(stanza)
        except LinkDownError:
            if is_owed:
                self._owe(domain, stanza)

    async def _ask(
        self, domain: str, iq: str, stanza_id: str, seconds: float, told: Callable[[IqOutcome, Element | None], None]
    ) -> None:
        link = self._links.get(domain)
        if link is None:
            told(IqOutcome(is_lost=True), None)
            return
        try:
            answer = await link.query(iq, stanza_id, seconds)
        except LinkDownError:
            told(IqOutcome(is_lost=True), None)
        except RequestTimeoutError:
            told(IqOutcome(is_unanswered=True), None)
        else:
            told(*_read(answer))


def returned_id(message: JingleMessage) -> str:
    """Return the id of the stanza that carries a message: what comes back as an error has nothing else of it."""
    return f"{type(message).__name__.lower()}-{message.sid}"


def _read(answer: Element) -> tuple[IqOutcome, Element | None]:
    if answer.get("type") != "error":
        return IqOutcome(), answer
    error = child(answer, "error")
    failure = failure_from_stanza_error(error, is_full_jid=True, is_call=True)
    own = [part.tag for part in (() if error is None else error) if part.tag.startswith(f"{{{ns.JINGLE_ERRORS}}}")]
    return IqOutcome(failure, local_name(own[0]) if own else ""), None
