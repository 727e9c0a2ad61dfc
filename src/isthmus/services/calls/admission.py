"""Whether a call may be made, and on what terms: loop, policy, existence, limits, in this order.

Strangers learn nothing about who exists: somebody who is unknown, who has blocked the caller, or who is away gets the
same answer (edge case 15); the rule in the record tells the administrator which it was.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from isthmus.config import CallSettings
from isthmus.model import Address, EndCause, Ending, Modality, Origin, Verdict
from isthmus.policy import Rules
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.call_events import CallTerms
from isthmus.services.calls.leg import IncomingCall
from isthmus.services.calls.media_path import PathKind, media_in_use
from isthmus.services.directory import Directory
from isthmus.services.loop_protection import LoopProtection

_UNREACHABLE = "The person called cannot be reached."


class Policing(Protocol):
    """The part of `services.policing` that calls ask."""

    @property
    def rules(self) -> Rules:
        """The rules now."""

    def verdict(self, sender: Address, recipient: Address, modality: Modality, *, is_contact: bool) -> Verdict:
        """May this cross now? Counts the attempt."""


class Relations(Protocol):
    """The part of `services.contacts` that calls ask."""

    def is_contact(self, sender: Address, recipient: Address) -> bool:
        """True when the recipient wants to hear from the sender."""


class CallAdmission:
    """Answers for every call.

    Args:
        in_calls: how many calls each person is in now.
    """

    def __init__(
        self,
        directory: Directory,
        policing: Policing,
        relations: Relations,
        loops: LoopProtection,
        settings: CallSettings,
        in_calls: Counter[Address],
    ) -> None:
        self._directory = directory
        self._policing = policing
        self._relations = relations
        self._loops = loops
        self._settings = settings
        self._in_calls = in_calls

    def decide(self, incoming: IncomingCall, live: int) -> CallTerms | Ending:
        """Return the terms of a call, or why there will be none.

        Args:
            incoming: the call.
            live: how many calls there are already.
        """
        looping = self._loops.refusal(incoming.hops) if incoming.hops else None
        if looping is not None:
            return Ending(EndCause.LOOP, looping.text, looping.origin, looping.rule)
        terms = self.decide_pair(incoming.caller, incoming.callee, incoming.offer)
        if isinstance(terms, Ending):
            return terms
        return self._full(incoming.caller, incoming.callee, live) or terms

    def decide_pair(self, caller: Address, callee: Address, offer: SessionDescription | None) -> CallTerms | Ending:
        """Return the terms between two people, whatever there is of limits (a transfer is no further call)."""
        wanted = ("audio",) if offer is None else media_in_use(offer)
        verdicts = {kind: self._verdict(caller, callee, Modality(kind)) for kind in wanted if kind in _MODALITIES}
        if not verdicts:
            return Ending(EndCause.MEDIA_MISMATCH, "Only audio and video can be used in calls.", Origin.FORMAT)
        if not any(verdicts.values()):
            return _refused(next(iter(verdicts.values())))
        if not self._directory.may_exist(callee):
            return Ending(EndCause.UNREACHABLE, _UNREACHABLE, Origin.ADDRESS, "unknown-user")
        if self._directory.is_service(callee):
            return Ending(EndCause.UNREACHABLE, _UNREACHABLE, Origin.ADDRESS, "service-address")
        return CallTerms(
            barred=frozenset(kind for kind in _MODALITIES if not self.may_use(caller, callee, kind)),
            path=self._path(caller, callee),
            ring_seconds=self._settings.ring_seconds,
            needs_encryption=self._needs_encryption(caller, callee),
        )

    def may_use(self, caller: Address, callee: Address, kind: str) -> Verdict:
        """May these two use a medium now? The live policing is not asked: this is no new attempt."""
        is_contact = self._relations.is_contact(caller, callee)
        return self._policing.rules.verdict(caller, callee, Modality(kind), is_contact=is_contact)

    def _verdict(self, caller: Address, callee: Address, modality: Modality) -> Verdict:
        is_contact = self._relations.is_contact(caller, callee)
        return self._policing.verdict(caller, callee, modality, is_contact=is_contact)

    def _full(self, caller: Address, callee: Address, live: int) -> Ending | None:
        if live >= self._settings.maximum_calls:
            return Ending(EndCause.OVERLOADED, "", Origin.LIMIT, "limit.calls")
        most = self._settings.maximum_calls_per_user
        if self._in_calls[caller] >= most:
            return Ending(
                EndCause.OVERLOADED, "You are in too many calls already.", Origin.LIMIT, "limit.calls-per-user"
            )
        if self._in_calls[callee] >= most and not self._directory.is_echo(callee):
            return Ending(EndCause.BUSY, "", Origin.LIMIT, "limit.calls-per-user")
        return None

    def _path(self, caller: Address, callee: Address) -> PathKind:
        """The more specific setting of the two; of two equally specific ones the stricter."""
        values = self._policing.rules.values
        one, other = values.effective(caller, "media"), values.effective(callee, "media")
        if one.kind != other.kind:
            return PathKind((one if one.kind > other.kind else other).value)
        return PathKind(other.value if one.value == PathKind.AUTO else one.value)

    def _needs_encryption(self, caller: Address, callee: Address) -> bool:
        values = self._policing.rules.values
        return any(values.effective(person, "encryption").value == "required" for person in (caller, callee))


_MODALITIES = ("audio", "video")


def _refused(verdict: Verdict) -> Ending:
    if verdict.rule.startswith("block."):
        return Ending(EndCause.UNREACHABLE, _UNREACHABLE, Origin.POLICY, verdict.rule)
    return Ending(EndCause.FORBIDDEN, verdict.text, Origin.POLICY, verdict.rule)
