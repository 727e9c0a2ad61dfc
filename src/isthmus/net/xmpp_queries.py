"""Answers to IQs: the component is the server of its users (XEP-0114), so every get and set gets one.

For a person whom the asker may not know of, every answer is the one for a person who does not exist:
service-unavailable (RFC 6120 section 8.3.3.19, XEP-0030 section 8, XEP-0054 section 3).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import Element

from isthmus.errors import AddressError, StoreError
from isthmus.interworking.addresses import address_from_jid
from isthmus.model import Address
from isthmus.ports import Clock, IqRefusal, JingleSink, Photo, Profile, Profiles
from isthmus.xmpp import capabilities as caps
from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.stanza import element, escape_text
from isthmus.xmpp.vcard import vcard

log = logging.getLogger(__name__)

# A profile comes from memory or a local store; a client gives up after some 20 s.
PROFILE_SECONDS = 10.0

# RFC 6120 section 8.3.3: the error type that belongs to each condition we use.
_ERROR_TYPES = {
    "bad-request": "modify",
    "conflict": "cancel",
    "feature-not-implemented": "cancel",
    "internal-server-error": "cancel",
    "item-not-found": "cancel",
    "jid-malformed": "modify",
    "remote-server-timeout": "wait",
    "resource-constraint": "wait",
    "service-unavailable": "cancel",
    "unexpected-request": "wait",
}


@dataclass(frozen=True, slots=True)
class Query:
    """One IQ get about a domain or a person.

    Attributes:
        payload: its only child.
        user: whom it is about; None for the domain.
        resource: the device, "" for the bare JID.
        profile: what the asker may know; a blank one for the domain.
        photo: of the person, where a vCard is asked for.
    """

    payload: Element
    user: Address | None = None
    resource: str = ""
    profile: Profile = field(default_factory=Profile)
    photo: Photo | None = None

    @property
    def node(self) -> str:
        """The disco node, "" when absent."""
        return self.payload.get("node", "")


_PING = f"{{{caps.PING}}}ping"
_JINGLE = f"{{{ns.JINGLE}}}jingle"
_VCARD = f"{{{ns.VCARD}}}vCard"

# A payload, or the condition of an error as a tuple of one.
Answer = str | tuple[str]
NOT_FOUND: Answer = ("item-not-found",)
UNAVAILABLE: Answer = ("service-unavailable",)


class QueryResponder:
    """Answers the IQs of one component.

    Args:
        domain: the component's name.
        profiles: what may be told about a user.
        clock: for uptime and XEP-0202.
        version: of Isthmus, for XEP-0092.
        kept: returns when everything received so far is durable; pings of the domain are answered after it.
        calls: who takes Jingle; None while calls are not offered.
    """

    def __init__(
        self,
        domain: str,
        profiles: Profiles,
        *,
        clock: Clock,
        version: str,
        kept: Callable[[], Awaitable[None]] | None = None,
        calls: JingleSink | None = None,
    ) -> None:
        self._domain = domain
        self._profiles = profiles
        self._kept = kept
        self._calls = calls
        self._clock = clock
        self._version = version
        self._started = clock.monotonic()
        self._about_domain: dict[str, Callable[[Query], Answer]] = {
            f"{{{caps.DISCO_INFO}}}query": _gateway_info,
            f"{{{caps.DISCO_ITEMS}}}query": _items,
            f"{{{caps.PING}}}ping": _empty,
            f"{{{caps.VERSION}}}query": self._software_version,
            f"{{{caps.LAST_ACTIVITY}}}query": self._uptime,
            f"{{{caps.TIME}}}time": self._time,
        }
        self._about_user: dict[str, Callable[[Query], Answer]] = {
            f"{{{caps.DISCO_INFO}}}query": _user_info,
            f"{{{caps.DISCO_ITEMS}}}query": _items,
            f"{{{caps.PING}}}ping": _empty,
            f"{{{caps.VERSION}}}query": self._software_version,
            f"{{{caps.LAST_ACTIVITY}}}query": _idle,
            _VCARD: _vcard,
        }

    def answer(self, iq: Element) -> str | Coroutine[Any, Any, str] | None:
        """Return the answer, a coroutine that makes it, or None where none may be sent.

        None: results and errors (RFC 6120 section 8.2.3), and a stanza without sender, which no server lets pass.
        """
        if iq.get("type") in ("result", "error") or not iq.get("from"):
            return None
        if iq.get("type") not in ("get", "set") or not iq.get("id") or len(iq) != 1:
            return error_answer(iq, "bad-request")  # RFC 6120 section 8.2.3: one child, an id, a known type
        payload = iq[0]
        to = iq.get("to") or self._domain
        if "@" not in to.partition("/")[0]:
            if payload.tag == _PING and self._kept is not None and iq.get("type") == "get":
                return self._answer_ping(iq, self._kept)
            respond = self._about_domain.get(payload.tag) if iq.get("type") == "get" else None
            return _stanza(iq, respond(Query(payload)) if respond else UNAVAILABLE)
        if payload.tag == _JINGLE and iq.get("type") == "set" and self._calls is not None:
            refusal = self._calls.jingle_received(iq)
            return _stanza(iq, "") if refusal is None else refusal_answer(iq, refusal)
        features = _features_asked_for(iq, payload, to)
        if features is not None:
            # One answer for all users, those who do not exist included: nothing to look up, nothing to give away.
            return _stanza(iq, caps.disco_info(caps.DEVICE_IDENTITY, features, payload.get("node", "")))
        respond = self._about_user.get(payload.tag) if iq.get("type") == "get" else None
        if respond is None:
            return error_answer(iq, "service-unavailable")
        return self._answer_about_user(iq, payload, respond)

    async def _answer_ping(self, iq: Element, kept: Callable[[], Awaitable[None]]) -> str:
        """Stanzas are worked off in order (RFC 6120 section 10.1), so the answer proves that those before it are safe.

        A component stream has no other acknowledgement (XEP-0114): who wants to know whether messages arrived asks
        with a ping, as we do ourselves in the other direction.
        """
        try:
            async with asyncio.timeout(PROFILE_SECONDS):
                await kept()
        except TimeoutError:
            return error_answer(iq, "resource-constraint")
        except StoreError:
            pass  # what could not be kept was sent back to its sender before this
        return _stanza(iq, "")

    async def _answer_about_user(self, iq: Element, payload: Element, respond: Callable[[Query], Answer]) -> str:
        try:
            user, resource = address_from_jid(iq.get("to", ""))
            asker, _ = address_from_jid(iq.get("from", ""))
        except AddressError:
            # No such person can exist, or a server asks: as for an unknown user.
            return error_answer(iq, "service-unavailable")
        try:
            async with asyncio.timeout(PROFILE_SECONDS):
                profile = await self._profiles.profile(user, asker)
                photo = None
                if payload.tag == _VCARD and profile is not None and profile.photo is not None:
                    photo = await profile.photo()
        except TimeoutError:
            return error_answer(iq, "remote-server-timeout")
        except Exception:
            log.exception("the profile of a user cannot be had")
            return error_answer(iq, "internal-server-error")
        if profile is None or not profile.is_known:
            return error_answer(iq, "service-unavailable")
        return _stanza(iq, respond(Query(payload, user, resource, profile, photo)))

    def _software_version(self, _query: Query) -> Answer:
        return element(
            "query",
            {"xmlns": caps.VERSION},
            element("name", None, "Isthmus"),
            element("version", None, escape_text(self._version)),
        )

    def _uptime(self, _query: Query) -> Answer:
        return _last_activity(self._clock.monotonic() - self._started)  # XEP-0012 section 5

    def _time(self, _query: Query) -> Answer:
        utc = datetime.fromtimestamp(self._clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return element("time", {"xmlns": caps.TIME}, element("tzo", None, "+00:00"), element("utc", None, utc))


def _features_asked_for(iq: Element, payload: Element, to: str) -> tuple[str, ...] | None:
    """Return what a query for one of our caps hashes is to be answered with, None for any other IQ."""
    if iq.get("type") != "get" or "/" not in to or payload.tag != f"{{{caps.DISCO_INFO}}}query":
        return None
    node, _, ver = payload.get("node", "").partition("#")
    return caps.FEATURES_BY_VER.get(ver) if node == caps.CAPS_NODE else None


def _empty(_query: Query) -> Answer:
    return ""


def _gateway_info(query: Query) -> Answer:
    if query.node:
        return NOT_FOUND
    return caps.disco_info(caps.GATEWAY_IDENTITY, caps.GATEWAY_FEATURES)


def _user_info(query: Query) -> Answer:
    if query.node:
        return NOT_FOUND
    if query.resource:
        return caps.disco_info(caps.DEVICE_IDENTITY, caps.device_features(query.profile.calls))
    return caps.disco_info(caps.ACCOUNT_IDENTITY, caps.ACCOUNT_FEATURES)


def _items(query: Query) -> Answer:
    # No list of users and none of devices: whoever wants to call rings the bare JID.
    return NOT_FOUND if query.node else element("query", {"xmlns": caps.DISCO_ITEMS})


def _idle(query: Query) -> Answer:
    return UNAVAILABLE if query.profile.idle_seconds is None else _last_activity(query.profile.idle_seconds)


def _last_activity(seconds: float) -> str:
    return element("query", {"xmlns": caps.LAST_ACTIVITY, "seconds": str(max(0, int(seconds)))})


def _vcard(query: Query) -> Answer:
    assert query.user is not None, "vCards are of people"
    name = query.profile.display_name or query.user.local
    return vcard(name) if query.photo is None else vcard(name, query.photo.content, query.photo.media_type)


def _stanza(iq: Element, answer: Answer) -> str:
    if isinstance(answer, tuple):
        return error_answer(iq, answer[0])
    return element("iq", {"type": "result", **_addresses(iq)}, answer)


def error_answer(iq: Element, condition: str) -> str:
    """Return the error that answers `iq`; `condition` is of RFC 6120 section 8.3.3."""
    return refusal_answer(iq, IqRefusal(condition))


def refusal_answer(iq: Element, refusal: IqRefusal) -> str:
    """Return the error that answers `iq`, with its application-specific condition."""
    condition = element(refusal.condition, {"xmlns": ns.STANZA_ERRORS})
    error = element("error", {"type": _ERROR_TYPES[refusal.condition]}, condition, refusal.application)
    return element("iq", {"type": "error", **_addresses(iq)}, error)


def _addresses(iq: Element) -> dict[str, str | None]:
    return {"id": iq.get("id"), "from": iq.get("to"), "to": iq.get("from")}
