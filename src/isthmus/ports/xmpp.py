"""The component streams, and who takes what comes on them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol
from xml.etree.ElementTree import Element

from isthmus.model import Address, Modality


class XmppLink(Protocol):
    """The component stream of one business domain (XEP-0114)."""

    domain: str

    @property
    def is_connected(self) -> bool:
        """True between handshake and loss."""

    def send(self, stanza: str) -> None:
        """Write one serialised stanza (default namespace `jabber:component:accept`). Raises LinkDownError."""

    async def barrier(self) -> None:
        """Return when the server has answered a ping: all stanzas sent before it were processed in order.

        Raises:
            LinkDownError: the link was lost first; the stanzas before it may or may not have been processed.
        """

    async def query(self, iq: str, stanza_id: str, timeout_seconds: float = 20.0) -> Element:
        """Send an IQ get/set and return the answer (result or error). Raises LinkDownError, RequestTimeoutError."""


class StanzaSink(Protocol):
    """Who takes stanzas from a link. Elements are in the namespace `jabber:component:accept`; IQs never arrive here."""

    def message_received(self, link: XmppLink, stanza: Element) -> None:
        """A `<message/>` of any type."""

    def presence_received(self, link: XmppLink, stanza: Element) -> None:
        """A `<presence/>` of any type."""

    def link_up(self, link: XmppLink) -> None:
        """The component is connected (again)."""

    def link_down(self, link: XmppLink) -> None:
        """The stream is lost."""


@dataclass(frozen=True, slots=True)
class IqRefusal:
    """The error that answers an IQ.

    Attributes:
        condition: of RFC 6120 section 8.3.3.
        application: an application-specific condition beside it, serialised (XEP-0166 section 10); may be empty.
    """

    condition: str
    application: str = ""


class JingleSink(Protocol):
    """Who takes calls that come over XMPP."""

    def jingle_received(self, iq: Element) -> IqRefusal | None:
        """Take an IQ set with one `<jingle/>`, addressed to one of our users (their bare JID or a resource).

        Returns:
            None to answer with an empty result, which is written before anything that follows from the IQ.
        """


@dataclass(frozen=True, slots=True)
class Photo:
    """A picture of somebody.

    Attributes:
        content: the file as it is.
        media_type: `image/png` or `image/jpeg`.
        sha1: of the content, in hexadecimal: its name in presence (XEP-0153).
    """

    content: bytes = field(repr=False)
    media_type: str
    sha1: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What a contact may know of a business user: answers vCard, last activity and disco queries.

    Attributes:
        photo: fetches the photo, which only a vCard needs; None: nobody has one here. May raise StoreError.
        calls: what calls to the user may carry: AUDIO and VIDEO, or nothing.
    """

    display_name: str = ""
    photo: Callable[[], Awaitable[Photo | None]] | None = None
    idle_seconds: int | None = None
    is_known: bool = True
    calls: frozenset[Modality] = frozenset()


class Profiles(Protocol):
    """Answers the link's IQs about our users; uniform for unknown users and strangers."""

    async def profile(self, user: Address, asked_by: Address) -> Profile | None:
        """Return what `asked_by` may know of `user`, or None (answered as for an unknown user)."""
