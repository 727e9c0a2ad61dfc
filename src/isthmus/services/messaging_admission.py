"""Whether a text may cross, and until when: loop, policy, existence, size, room, in this order."""

from __future__ import annotations

from isthmus.config import LimitSettings
from isthmus.model import Failure, Message, Modality, Origin
from isthmus.policy import refusal as refusal_of
from isthmus.ports import Clock
from isthmus.services.directory import Directory
from isthmus.services.loop_protection import LoopProtection
from isthmus.services.messaging_notifications import Policing, Relations
from isthmus.services.messaging_routes import MessageRoutes
from isthmus.trace import Trace

UNKNOWN_USER = Failure(Origin.ADDRESS, 480, "recipient-unavailable", "The recipient cannot be reached.", "unknown-user")
TOO_LONG = Failure(Origin.LIMIT, 413, "policy-violation", "The message is too long.", "limit.message-octets")
BOX_FULL = Failure(
    Origin.LIMIT,
    480,
    "resource-constraint",
    "Too many messages are waiting for the recipient; try again later.",
    "limit.offline-messages",
    is_temporary=True,
)
NOTHING_HERE = Failure(Origin.ADDRESS, 403, "service-unavailable", "This address is not for you.", "service-address")


class Admission:
    """Answers for every text; the same for the unknown and the unreachable, so that nobody learns who exists."""

    def __init__(
        self,
        directory: Directory,
        relations: Relations,
        policing: Policing,
        loops: LoopProtection,
        routes: MessageRoutes,
        limits: LimitSettings,
        clock: Clock,
        trace: Trace,
    ) -> None:
        self._directory = directory
        self._relations = relations
        self._policing = policing
        self._loops = loops
        self._routes = routes
        self._limits = limits
        self._clock = clock
        self._trace = trace

    def refusal(self, message: Message) -> Failure | None:
        """Why a text must not cross, or None. Order: loop, policy, existence, size, room."""
        sender, recipient = message.sender, message.recipient
        if message.hops:
            looping = self._loops.refusal(message.hops)
            if looping is not None:
                return looping
        is_contact = self._relations.is_contact(sender, recipient)
        verdict = self._policing.verdict(sender, recipient, Modality.MESSAGES, is_contact=is_contact)
        if not verdict.is_allowed:
            return refusal_of(verdict)
        if not self._directory.may_exist(recipient):
            return UNKNOWN_USER
        if self._directory.is_service(recipient) and not self._directory.is_business(sender.domain):
            return NOTHING_HERE
        if len(message.text) * 4 > self._limits.message_octets and (
            len(message.text.encode()) > self._limits.message_octets
        ):
            return TOO_LONG
        if not self._routes.has_room(message, self._limits.offline_messages_per_user):
            return BOX_FULL
        return None

    def note_refusal(self, message: Message, failure: Failure) -> None:
        """Put a refusal on record for the administrator."""
        self._trace.decision(
            f"message of {message.sender} to {message.recipient} refused: {failure.text}",
            people=(str(message.sender), str(message.recipient)),
            rule=failure.rule,
            call_id=message.id,
        )
        self._routes.note_failure(message, failure)

    def expires_at(self, message: Message) -> float:
        """When a text is stale: as its sender wishes, at the latest when our own patience ends."""
        latest = self._clock.wall() + self._limits.offline_seconds
        return latest if message.expires_at is None else min(message.expires_at, latest)
