"""Offers and answers between the two ends of an answered call (RFC 3264): one at a time, whoever begins.

Mostly an offer of one end is put to the other and its answer comes back. Three things begin with us: an offerless
re-INVITE, media that policy bars, and an end that takes the place of another. Then the other end hears of the outcome
only where it would notice; a relay hides new addresses from it.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from isthmus.model import EndCause, Ending, MediaForm
from isthmus.sdp.offer_answer import form_of, is_same_media, with_codecs_in_use
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.leg import Leg, LegAnswered, LegOffered, LegOfferRefused
from isthmus.services.calls.media_path import MediaPath, encryption_missing, media_in_use, without


class AnsweredCall(Protocol):
    """What a negotiation needs of its call."""

    barred: frozenset[str]
    needs_encryption: bool
    media: tuple[str, ...]

    @property
    def media_path(self) -> MediaPath:
        """The way between the two ends."""

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The two ends."""

    def other(self, leg: Leg) -> Leg:
        """The end at the other side."""

    def happen_next(self, leg: Leg, event: LegOffered) -> None:
        """Work this off before everything else."""

    def note(self, text: str) -> None:
        """Write to the trace."""


class Negotiation:
    """The state of offers and answers of one call.

    Attributes:
        said: by key of leg, what it last said about its media.
        told: by key of leg, what we last sent to it.
    """

    def __init__(self, call: AnsweredCall) -> None:
        self._call = call
        self.said: dict[str, SessionDescription] = {}
        self.told: dict[str, SessionDescription] = {}
        self._offerer: Leg | None = None  # whose offer the other end is looking at
        self._completing: Leg | None = None  # who is to answer what only the relay needs to know
        self._accepting: Leg | None = None  # who waits to be accepted in place of another
        self._meeting: Leg | None = None  # who looks at an offer because the other end was replaced
        self._waiting: deque[tuple[Leg, LegOffered]] = deque()

    async def connect_late_offer(self, caller: Leg, callee: Leg, answer: SessionDescription) -> None:
        """Only now the caller has said where its media go: the relay hears both ends again, they hear nothing."""
        caller.form = form_of(answer)
        self.said[caller.key] = answer
        await self._offer_to(callee, answer, by=caller)
        await self._call.media_path.answer(self.said[callee.key], by=callee, to=caller)

    # --- one end offers, the other one answers ---

    async def offered(self, leg: Leg, event: LegOffered) -> None:
        """Put the offer of one end to the other (hold, video, other addresses)."""
        if self._offerer is not None:
            if self._offerer is leg:
                leg.refuse_offer(Ending(EndCause.FAILED, "An earlier offer is not answered yet.", status=500))
            else:
                # Both ends at once: they try again at different times (RFC 3261 section 14.1).
                leg.refuse_offer(Ending(EndCause.FAILED, "The other side has just made an offer.", status=491))
            return
        if event.offer is None:
            leg.answer(self.told[leg.key])  # what it knows already, as an offer; the answer follows
            return
        if self._call.needs_encryption and form_of(event.offer) is MediaForm.RTP:
            leg.refuse_offer(encryption_missing())
            return
        leg.form = form_of(event.offer)
        self._offerer = leg
        self.said[leg.key] = event.offer
        other = self._call.other(leg)
        other.offer(await self._offer_to(other, event.offer, by=leg))

    async def wait(self, leg: Leg, event: LegOffered) -> None:
        """Keep an offer until the other end knows that it is in a call."""
        self._waiting.append((leg, event))

    async def answered(self, leg: Leg, event: LegAnswered) -> None:
        """Bring the answer of one end to the other."""
        self.said[leg.key] = event.answer
        offerer = self._offerer
        if offerer is None or offerer is leg:
            await self._answered_to_us(leg, event.answer)
            return
        self._offerer = None
        leg.form = form_of(event.answer)
        answer = await self._answer_to(offerer, event.answer, by=leg)
        self._call.media = media_in_use(answer)
        self._call.note(f"media now {', '.join(self._call.media) or 'none'}")
        offerer.answer(answer)
        self.take_waiting()

    async def refused(self, leg: Leg, event: LegOfferRefused) -> None:
        """Tell the end that offered that the other one keeps its media."""
        offerer, self._offerer = self._offerer, None
        self._completing = None
        if offerer is not None and offerer is not leg:
            offerer.refuse_offer(event.ending)
        self._call.note(f"{leg.key} keeps its media: {event.ending.text or event.ending.cause.value}")
        self.take_waiting()

    def take_waiting(self) -> None:
        """The way is free for the next offer."""
        if self._waiting:
            self._call.happen_next(*self._waiting.popleft())

    # --- what begins with us ---

    async def _answered_to_us(self, leg: Leg, answer: SessionDescription) -> None:
        other = self._call.other(leg)
        if self._completing is leg:
            self._completing = None
            await self._call.media_path.answer(answer, by=leg, to=other)
            self.take_waiting()
            return
        leg.form = form_of(answer)
        if self._accepting is not None:
            accepted, self._accepting = self._accepting, None
            accepted.accept(await self._answer_to(accepted, answer, by=leg))
            return
        known = self.told.get(other.key)
        met, self._meeting = self._meeting is leg, None
        offer = await self._offer_to(other, self.spoken(leg) if met else answer, by=leg)
        if known is not None and is_same_media(offer, known):
            await self._call.media_path.answer(self.said[other.key], by=other, to=leg)
            self.take_waiting()
            return
        self._completing = other
        other.offer(offer)

    async def replace(
        self, new: Leg, remaining: Leg, description: SessionDescription, told: SessionDescription | None
    ) -> None:
        """Connect the end that remains with a new one.

        Args:
            new, remaining: the ends.
            description: what the new end said.
            told: what it was told of the remaining end; None when it waits to be accepted.
        """
        self._offerer = self._completing = self._meeting = None
        self.said[new.key] = description
        if told is None:
            self._accepting = new
            offer = await self._offer_to(remaining, description, by=new)
        else:
            self.told[new.key] = told
            known = self.told.get(remaining.key)
            offer = await self._answer_to(remaining, description, by=new)
            if known is not None and is_same_media(offer, known):
                return  # a relay has the same place for everybody at the other end
            self._meeting = remaining
        remaining.offer(offer)

    async def bar(self) -> None:
        """Offer both ends what they know, without what policy no longer allows."""
        for leg in self._call.legs:
            known = self.told.get(leg.key)
            changed = None if known is None else without(known, self._call.barred)
            if changed is not None and changed is not known:
                self.told[leg.key] = changed
                leg.offer(changed)

    def spoken(self, leg: Leg) -> SessionDescription:
        """Return what a relay is to say on behalf of an end to another one than before: only what it sends already.

        Few apps change their codec when they are told to in a call (description-info), and none has to; the relay
        transcodes.

        Raises:
            KeyError: it has said nothing yet.
        """
        said, told = self.said[leg.key], self.told.get(leg.key)
        return said if told is None else with_codecs_in_use(said, told)

    # --- inside ---

    async def _offer_to(self, leg: Leg, offer: SessionDescription, *, by: Leg) -> SessionDescription:
        allowed = without(offer, self._call.barred)
        self.told[leg.key] = await self._call.media_path.offer(allowed, by=by, to=leg)
        return self.told[leg.key]

    async def _answer_to(self, leg: Leg, answer: SessionDescription, *, by: Leg) -> SessionDescription:
        self.told[leg.key] = await self._call.media_path.answer(answer, by=by, to=leg)
        return self.told[leg.key]
