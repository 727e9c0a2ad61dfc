"""Who wants to send and to hear what: `senders` of Jingle is one word for the wishes of both sides (XEP-0167).

The wish of each side is kept apart, otherwise the hold of the one would end with the hold of the other.
"""

from __future__ import annotations

from collections.abc import Collection

from isthmus.sdp.offer_answer import mirrored, narrowed
from isthmus.sdp.session_description import DIRECTIONS, SessionDescription


def wish_behind(flow: str, other: str) -> str:
    """Return what a side wishes, given the direction it announced for both sides of a medium.

    Where the other side forbids a direction, the word says nothing of this side's wish for it, which is taken to be
    willing.

    Args:
        flow: as this side says it.
        other: the other side's own wish, as that side says it.
    """
    return next((wish for wish in DIRECTIONS if narrowed(wish, mirrored(other)) == flow), flow)


class Wishes:
    """The directions that both sides of a session wish, by content name.

    Attributes:
        is_held: the peer holds by information (XEP-0167 section 8.2), whatever it says of `senders`.
    """

    def __init__(self) -> None:
        self._ours: dict[str, str] = {}
        self._theirs: dict[str, str] = {}
        # Apart from `senders`: clients that say both may say the end of the one before the end of the other.
        self.is_held = False

    def learn(self, names: tuple[str, ...], local: SessionDescription, remote: SessionDescription) -> None:
        """Take what was said at the beginning for what both wish, until they say something else."""
        for sdp, wishes in ((local, self._ours), (remote, self._theirs)):
            for name, section in zip(names, sdp.media, strict=False):
                if not section.is_rejected:
                    wishes.setdefault(name, sdp.direction(section))

    def ours_offered(self, names: tuple[str, ...], offer: SessionDescription) -> None:
        """Our side offers these directions."""
        self._ours.update(zip(names, map(offer.direction, offer.media), strict=True))

    def ours_answered(self, names: tuple[str, ...], answer: SessionDescription) -> None:
        """Our side answers with these directions, which the peer's wishes have narrowed."""
        for name, section in zip(names, answer.media, strict=False):
            if not section.is_rejected:
                self._ours[name] = wish_behind(answer.direction(section), self._their(name))

    def theirs_said(self, names: tuple[str, ...], about: Collection[str], remote: SessionDescription) -> None:
        """The peer announced these directions for the contents `about`."""
        for name, section in zip(names, remote.media, strict=True):
            if name in about and not section.is_rejected:
                self._theirs[name] = wish_behind(remote.direction(section), self._ours.get(name, "sendrecv"))

    def _their(self, name: str, unknown: str = "sendrecv") -> str:
        wish = self._theirs.get(name, unknown)
        return narrowed(wish, "sendonly") if self.is_held else wish

    def joint(self, names: tuple[str, ...], local: SessionDescription) -> SessionDescription:
        """Return a description of our side that does no more than the peer wishes as well."""
        sections = [
            section
            if section.is_rejected
            else section.with_direction(narrowed(local.direction(section), mirrored(self._their(name))))
            for name, section in zip(names, local.media, strict=False)
        ]
        return local.with_media(sections)

    def theirs_in(self, names: tuple[str, ...], remote: SessionDescription) -> SessionDescription:
        """Return the peer's description with its own wishes."""
        sections = [
            section if section.is_rejected else section.with_direction(self._their(name, remote.direction(section)))
            for name, section in zip(names, remote.media, strict=True)
        ]
        return remote.with_media(sections)


def answered_by(remote: SessionDescription, local: SessionDescription) -> SessionDescription:
    """Return the peer's description doing what ours, which is the last word, lets it do."""
    sections = [
        theirs if theirs.is_rejected else theirs.with_direction(mirrored(local.direction(ours)))
        for theirs, ours in zip(remote.media, local.media, strict=False)
    ]
    return remote.with_media(sections)
