"""The way of the media between two legs: direct, or through a relay.

Direct: descriptions pass unchanged, and our servers carry no media; both ends must speak ICE and DTLS-SRTP.
Relayed: every description is rewritten by the relay, which translates between the two forms. A call has one session in
one relay, whoever rings in it: the caller then sees one end, with one set of keys, from the first ring on. (A relay
greets an offerer with DTLS as soon as it has its offer; two sessions would greet it twice.)
Media that policy bars are offered with port zero: the sections keep their places, so that what is said later about any
of them still means the same one at both ends (RFC 3264 section 8).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from enum import StrEnum
from typing import Protocol

from isthmus.model import EndCause, Ending, MediaForm, Origin
from isthmus.ports import MediaQuality, MediaRelay, RelaySession
from isthmus.sdp.session_description import Attribute, MediaDescription, SessionDescription


class PathKind(StrEnum):
    """How media go; the values of the policy setting `media`, where AUTO chooses."""

    AUTO = "auto"
    DIRECT = "direct"
    RELAYED = "relayed"


class End(Protocol):
    """What a path needs to know of a leg."""

    @property
    def key(self) -> str:
        """Names the leg."""

    @property
    def form(self) -> MediaForm:
        """What media it takes."""


class MediaPath(Protocol):
    """Carries descriptions from one leg to the other. The operations of one call are made one after the other."""

    kind: PathKind

    async def offer(self, sdp: SessionDescription, *, by: End, to: End) -> SessionDescription:
        """Return what to offer to `to`. Raises RelayError."""

    async def answer(self, sdp: SessionDescription, *, by: End, to: End) -> SessionDescription:
        """Return what to answer to `to`, whose offer `by` answers. Raises RelayError."""

    async def add_candidates(self, fragment: SessionDescription, *, by: End) -> SessionDescription | None:
        """Take trickled candidates; what comes back is for the other leg (None: the relay keeps them)."""


class DirectPath:
    """Both ends talk to each other."""

    kind = PathKind.DIRECT

    async def offer(self, sdp: SessionDescription, *, by: End, to: End) -> SessionDescription:
        """Pass it on."""
        return sdp

    async def answer(self, sdp: SessionDescription, *, by: End, to: End) -> SessionDescription:
        """Pass it on."""
        return sdp

    async def add_candidates(self, fragment: SessionDescription, *, by: End) -> SessionDescription | None:
        """Pass them on."""
        return fragment


class RelayedPath:
    """Both ends talk to the relay."""

    kind = PathKind.RELAYED

    def __init__(self, session: RelaySession) -> None:
        self._session = session

    async def offer(self, sdp: SessionDescription, *, by: End, to: End) -> SessionDescription:
        """Let the relay rewrite it."""
        return await self._session.offer(sdp, by=by.key, to=to.key, form=to.form)

    async def answer(self, sdp: SessionDescription, *, by: End, to: End) -> SessionDescription:
        """Let the relay rewrite it."""
        return await self._session.answer(sdp, by=by.key, to=to.key, form=to.form)

    async def add_candidates(self, fragment: SessionDescription, *, by: End) -> SessionDescription | None:
        """Give them to the relay, which is the only one to check them."""
        await self._session.add_candidates(fragment, by=by.key)
        return None


class NoPathError(Exception):
    """No way for media that policy and both ends allow; the text says why."""


class CallMedia:
    """The media of one call: its paths, and its session in a relay as soon as one of them needs it.

    Args:
        relay: the relays; None when there are none.
        on_dead: called once when the relay is lost or has heard no media for too long.
    """

    def __init__(self, relay: MediaRelay | None, on_dead: Callable[[], None]) -> None:
        self._relay = relay
        self._on_dead = on_dead
        self._session: RelaySession | None = None

    def choose(self, one: MediaForm, other: MediaForm, wanted: PathKind) -> MediaPath:
        """Return a path between ends of these forms.

        Args:
            one, other: what the ends speak.
            wanted: what policy says.

        Raises:
            NoPathError: there is none.
            RelayError: a relay is needed and none answers.
        """
        can_be_direct = one is other and (one is MediaForm.WEBRTC or wanted is PathKind.DIRECT)
        if wanted is PathKind.DIRECT and not can_be_direct:
            raise NoPathError(f"policy wants direct media, but the devices speak {one.value} and {other.value}")
        if can_be_direct and wanted is not PathKind.RELAYED:
            return DirectPath()
        if self._session is None:
            if self._relay is None:
                raise NoPathError("the two devices need a media relay, and none is configured")
            self._session = self._relay.open(self._on_dead)
        return RelayedPath(self._session)

    async def drop(self, end: End) -> None:
        """Take an end out that left while the others go on. Never raises."""
        if self._session is not None:
            await self._session.drop(end.key)

    async def close(self) -> tuple[MediaQuality, ...]:
        """Free the relay's ports; returns its last counters. Never raises."""
        return () if self._session is None else await self._session.delete()


def without(sdp: SessionDescription, barred: Collection[str]) -> SessionDescription:
    """Return the description with the sections of barred media ("video") switched off."""
    if not any(section.media in barred and section.port for section in sdp.media):
        return sdp
    gone = {section.mid for section in sdp.media if section.media in barred}
    switched = [_switched_off(section) if section.media in barred else section for section in sdp.media]
    groups = tuple(left for attribute in sdp.attributes if (left := _without_members(attribute, gone)) is not None)
    return replace(sdp, media=tuple(switched), attributes=groups)


def _switched_off(section: MediaDescription) -> MediaDescription:
    return replace(section.with_direction("inactive"), port=0).with_attributes(drop=["bundle-only"])


def _without_members(attribute: Attribute, mids: Collection[str]) -> Attribute | None:
    """A section with port zero must not stand in a group (RFC 9143 section 7.3.3)."""
    if attribute.name != "group":
        return attribute
    semantics, *members = (attribute.value or "").split() or [""]
    left = [member for member in members if member not in mids]
    return Attribute("group", " ".join([semantics, *left])) if left else None


def encryption_missing() -> Ending:
    """How a call ends, or an offer is refused, whose media would be in clear where policy forbids it."""
    text = "Policy requires encrypted media, and this device offers none."
    return Ending(EndCause.SECURITY, text, Origin.POLICY, "encryption.required")


def media_in_use(sdp: SessionDescription) -> tuple[str, ...]:
    """The kinds of media that are not rejected, in order, each once."""
    return tuple(dict.fromkeys(section.media for section in sdp.media if not section.is_rejected))
