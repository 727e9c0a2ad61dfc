"""One call's media in one rtpengine (`ports.RelaySession`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from isthmus.errors import PeerError, RelayError
from isthmus.interworking import relay_commands
from isthmus.interworking.relay_commands import RelayCommand, Step
from isthmus.interworking.relay_descriptions import from_relay, to_relay
from isthmus.model import MediaForm
from isthmus.net.rtpengine_ng import RelayRefusedError
from isthmus.net.rtpengine_reports import packets_by_sender, qualities
from isthmus.ports import MediaQuality
from isthmus.sdp.offer_answer import form_of, next_version
from isthmus.sdp.session_description import SessionDescription
from isthmus.sdp.trickle import fragment_to_text
from isthmus.trace import Trace

_UNKNOWN_CALL = "unknown call-id"


class Instance(Protocol):
    """The part of one relay that a session uses."""

    name: str

    async def ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a command. Raises RelayError."""

    def add(self, session: RtpengineSession) -> None:
        """This session's call is (about to be) there."""

    def remove(self, session: RtpengineSession) -> None:
        """It is over."""


class RtpengineSession:
    """Implements `ports.RelaySession`.

    Args:
        call_id: of the relay's call, unique and recognisably ours.
        candidates: relays to try for the first offer, the best first; later all goes to the one that took it.
        on_dead: called once when the media have gone (`ports.MediaRelay.open`).
        trace: where failures are told.
        silence_seconds: an end that should send and has sent, but is not heard of for so long, has gone; 0: never.
        shows_bodies: session descriptions, which hold keys, in the trace.
    """

    def __init__(
        self,
        call_id: str,
        candidates: list[Instance],
        on_dead: Callable[[], None],
        *,
        trace: Trace,
        silence_seconds: float = 0.0,
        shows_bodies: bool = False,
    ) -> None:
        self.call_id = call_id
        self._candidates = candidates
        self._instance = candidates[0]
        self._instance.add(self)
        self._on_dead: Callable[[], None] | None = on_dead
        self._trace = trace
        self._silence_seconds = silence_seconds
        self._shows_bodies = shows_bodies
        self._turn = asyncio.Lock()
        self._is_begun = False  # the relay has taken an offer
        self._is_over = False
        self._shown: dict[str, SessionDescription] = {}  # what each end got last
        self._talking: frozenset[str] = frozenset()  # the ends of the last answered offer
        self._ends: set[str] = set()  # all that the relay knows
        self._leaving: set[str] = set()  # those of them that are to be taken out
        self._heard: dict[str, tuple[int, float]] = {}  # packets of each end, and since when it is that many
        self._last_quality: tuple[MediaQuality, ...] = ()

    @property
    def relay_name(self) -> str:
        """Which relay has it, for the trace and call records."""
        return self._instance.name

    # --- negotiation ---

    async def offer(self, sdp: SessionDescription, *, by: str, to: str, form: MediaForm) -> SessionDescription:
        """Rewrite an offer (`ports.RelaySession.offer`).

        Each `to` gets ports of its own, so one offer may go to several devices. An end that is offered to a new one
        keeps its relay port and keys: after a transfer it need not be told (measured: "port latching").
        """
        async with self._turn:
            command = self._command("offer", sdp, offerer=by, answerer=to, form=form)
            reply = await self._ask(command) if self._is_begun else await self._begin(command)
            await self._now_knows(by, to)
            return self._shown_to(to, from_relay(_description(reply), target=form))

    async def answer(self, sdp: SessionDescription, *, by: str, to: str, form: MediaForm) -> SessionDescription:
        """Rewrite an answer (`ports.RelaySession.answer`)."""
        async with self._turn:
            reply = await self._ask(self._command("answer", sdp, offerer=to, answerer=by, form=form))
            self._talking = frozenset((by, to))
            self._heard.clear()
            await self._now_knows(by, to)
            return self._shown_to(to, from_relay(_description(reply), target=form))

    async def add_candidates(self, fragment: SessionDescription, *, by: str) -> None:
        """Feed trickled candidates (`ports.RelaySession.add_candidates`)."""
        async with self._turn:
            text = fragment_to_text(to_relay(fragment))
            try:
                await self._ask(relay_commands.trickled(call_id=self.call_id, tag=by, fragment=text))
            except RelayError as error:
                self._tell(f"candidates were not taken: {error}")

    def _command(
        self, step: Step, sdp: SessionDescription, *, offerer: str, answerer: str, form: MediaForm
    ) -> RelayCommand:
        return relay_commands.negotiation(
            step,
            call_id=self.call_id,
            offerer=offerer,
            answerer=answerer,
            sdp=to_relay(sdp).to_text(),
            source=form_of(sdp),
            target=form,
        )

    async def _begin(self, command: RelayCommand) -> Mapping[str, Any]:
        """Try one relay after the other. What a relay says of the offer itself no other one would say differently."""
        failure: RelayError | None = None
        for instance in self._candidates:
            if instance is not self._instance:
                self._instance.remove(self)
                self._instance = instance
                instance.add(self)
            try:
                reply = await self._ask(command)
            except RelayRefusedError as error:
                await self._forget()
                if not error.is_full:
                    raise
                failure = error
            except RelayError as error:
                failure = error  # it may have taken the offer: if it lives it is told to forget it when it is heard
            else:
                self._is_begun = True
                return reply
            self._tell(f"the call goes to another relay, if there is one: {failure}")
        raise failure or RelayError("there is no media relay")

    def _shown_to(self, party: str, sdp: SessionDescription) -> SessionDescription:
        """One end sees one session in `o=`, whoever is at the other end (RFC 3264 section 8)."""
        previous = self._shown.get(party)
        self._shown[party] = shown = sdp if previous is None else next_version(sdp, previous)
        return shown

    # --- the end ---

    async def drop(self, party: str) -> None:
        """Take an end out that left while the others go on: a device that lost the race, or who transferred the call.

        Nothing more is taken from it. Never raises.
        """
        async with self._turn:
            self._talking -= {party}
            self._shown.pop(party, None)
            if party in self._ends:
                self._leaving.add(party)
            await self._take_out()

    async def _now_knows(self, *parties: str) -> None:
        self._ends.update(parties)
        self._leaving.difference_update(parties)
        await self._take_out()

    async def _take_out(self) -> None:
        """The relay ends the whole call with the last pair of ends, and with it keys and ports that somebody was told.

        Whoever leaves one alone stays until another one comes.
        """
        if len(self._ends - self._leaving) < 2:
            return
        for party in sorted(self._leaving):
            try:
                await self._ask(relay_commands.deletion(self.call_id, party))
            except RelayError as error:
                self._tell(f"{party} could not be taken out: {error}")
        self._ends -= self._leaving
        self._leaving.clear()

    async def delete(self) -> tuple[MediaQuality, ...]:
        """End it and return the last counters (`ports.RelaySession.delete`)."""
        self._on_dead = None
        async with self._turn:
            if self._is_over:
                return self._last_quality
            self._is_over = True
            if self._is_begun:
                await self._query()
            await self._forget()
            self._instance.remove(self)
            return self._last_quality

    async def _forget(self) -> None:
        try:
            await self._ask(relay_commands.deletion(self.call_id))
        except RelayError as error:
            # The relay ends it by itself when no media come, and is told again when it is back.
            self._tell(f"the relay could not be told that the call is over: {error}")

    def lost(self, why: str) -> None:
        """The media have gone: tell the owner, once."""
        if self._on_dead is not None:
            on_dead, self._on_dead = self._on_dead, None
            self._tell(f"the media of the call are gone: {why}")
            on_dead()

    # --- watching ---

    async def quality(self) -> tuple[MediaQuality, ...]:
        """Ask for the counters (`ports.RelaySession.quality`)."""
        return qualities(await self._query())

    async def examine(self) -> None:
        """Look whether the relay still has the call, and whether somebody fell silent. Never raises."""
        if self._is_over or not self._is_begun:
            return
        reply = await self._query()
        if not reply or self._is_over:
            return
        now = asyncio.get_running_loop().time()
        for party, packets in packets_by_sender(reply).items():
            if party not in self._talking:
                continue
            before, since = self._heard.get(party, (-1, now))
            if packets != before:
                self._heard[party] = packets, now
            elif packets and self._silence_seconds and now - since >= self._silence_seconds:
                self.lost(f"{party} has sent nothing for {now - since:.0f} s")
                return

    async def _query(self) -> Mapping[str, Any]:
        """Return the counters, {} when they cannot be had."""
        try:
            reply = await self._ask(relay_commands.query(self.call_id))
        except RelayRefusedError as error:
            if str(error).lower() == _UNKNOWN_CALL:
                self.lost("the relay does not know the call any more")
            return {}
        except RelayError:
            return {}
        self._last_quality = qualities(reply) or self._last_quality
        return reply

    # --- wire ---

    async def _ask(self, command: RelayCommand) -> Mapping[str, Any]:
        what = command["command"]
        is_traced = self._trace.is_listened_to and what != "query"
        link = f"relay {self._instance.name}"
        if is_traced:
            ends = " ".join(f"{key} {command[key]}" for key in ("from-tag", "to-tag") if key in command)
            self._trace.wire(">", link, f"{what} {ends}{self._body(command)}", call_id=self.call_id)
        reply = await self._instance.ask(command)
        if is_traced:
            self._trace.wire("<", link, f"{what} {reply.get('result')}{self._body(reply)}", call_id=self.call_id)
        return reply

    def _body(self, message: Mapping[str, Any]) -> str:
        return f"\n{message['sdp']}" if self._shows_bodies and "sdp" in message else ""

    def _tell(self, text: str) -> None:
        self._trace.decision(text, rule="media.relay", call_id=self.call_id, mark="!")


def _description(reply: Mapping[str, Any]) -> SessionDescription:
    try:
        return SessionDescription.parse(str(reply.get("sdp", "")))
    except PeerError as error:
        raise RelayError(f"the media relay answered with a description that cannot be read: {error}") from error
