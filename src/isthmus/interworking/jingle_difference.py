"""Which Jingle actions bring the peer from one description to the next, and the way of trickled candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from isthmus.interworking.jingle_contents import content_names
from isthmus.interworking.jingle_sdp import one_content_each, sdp_to_jingle
from isthmus.interworking.jingle_senders import direction_to_senders
from isthmus.interworking.jingle_transport import Foundations, candidates_to_elements
from isthmus.sdp.session_description import MediaDescription, SessionDescription
from isthmus.xmpp.jingle import Content, Jingle
from isthmus.xmpp.jingle_ice_udp import Transport


def fragment_to_jingle(
    fragment: SessionDescription,
    *,
    is_from_initiator: bool,
    creators: Mapping[str, str],
    known: SessionDescription | None = None,
    names: tuple[str, ...] | None = None,
) -> Jingle | None:
    """Return the transport-info for trickled candidates, or None when none of them can be said in Jingle.

    It may be about several contents: see `one_content_each`.

    Args:
        fragment: sections with mid, credentials and candidates.
        is_from_initiator: who says it.
        creators: of the contents.
        known: all that this side said before: its candidates are not said again, and foundations keep their numbers.
        names: content for each section of the fragment, where the mids are not the names.
    """
    before = {} if known is None else dict(zip(content_names(known), known.flattened().media, strict=True))
    foundations = Foundations(() if known is None else (known,))
    maker = "initiator" if is_from_initiator else "responder"
    jingle = Jingle()
    jingle["action"] = "transport-info"
    for name, section in zip(names or content_names(fragment), fragment.flattened().media, strict=False):
        old = before.get(name)
        ufrag, pwd = section.ice_ufrag, section.ice_pwd
        if not ufrag and old is not None:
            ufrag, pwd = old.ice_ufrag, old.ice_pwd
        is_same_generation = old is not None and old.ice_ufrag == ufrag
        told = set(old.candidates) if old is not None and is_same_generation else set()
        fresh = [candidate for candidate in section.candidates if candidate not in told]
        candidates = candidates_to_elements(fresh, name, foundations)
        if candidates:
            content = _content(name, creators.get(name, maker))
            transport = _transport(ufrag, pwd)
            for candidate in candidates:
                transport.append(candidate)
            content.append(transport)
            jingle.append(content)
    return jingle if jingle["contents"] else None


def _content(name: str, creator: str) -> Content:
    content = Content()
    content["creator"] = creator
    content["name"] = name
    return content


def _transport(ufrag: str, pwd: str) -> Transport:
    transport = Transport()
    if ufrag and pwd:  # XEP-0176 section 5.2: they go with every candidate
        transport["ufrag"], transport["pwd"] = ufrag, pwd
    return transport


def difference(
    old: SessionDescription, new: SessionDescription, *, is_from_initiator: bool, creators: Mapping[str, str]
) -> list[Jingle]:
    """Return the actions that bring the peer from what this side said last to what it says now, in order.

    Each is about one content, as `one_content_each` says. A content that is added gets this side as its creator; the
    caller notes that before it sends. Sections are compared by their place.

    | in the new description | action |
    |---|---|
    | port 0 | content-remove |
    | a new section, or another mid in the place of an old one | content-add |
    | another direction | content-modify |
    | other ICE credentials | transport-info without candidates, which is how clients restart ICE; then its candidates |
    | another certificate | transport-replace |
    | more candidates | transport-info |
    | other codecs | description-info |

    Args:
        old, new: whole descriptions of this side; an answer counts as well as an offer.
        is_from_initiator: this side is the initiator of the session.
        creators: of the contents there were.
    """
    found = _Difference(old.flattened(), new.flattened(), is_from_initiator, creators).actions()
    return [single for jingle in found for single in one_content_each(jingle)]


class _Difference:
    """Two descriptions, sorted by what became of each section."""

    def __init__(
        self, old: SessionDescription, new: SessionDescription, is_from_initiator: bool, creators: Mapping[str, str]
    ) -> None:
        self.old, self.new, self.is_from_initiator, self.creators = old, new, is_from_initiator, creators
        self.removed: list[str] = []
        self.added: list[str] = []
        self.kept: list[tuple[str, MediaDescription, MediaDescription]] = []
        before = list(zip(content_names(old), old.media, strict=True))
        for index, (name, section) in enumerate(zip(content_names(new), new.media, strict=True)):
            old_name, old_section = before[index] if index < len(before) else ("", None)
            was_live = old_section is not None and not old_section.is_rejected
            is_same = old_section is not None and old_section.media == section.media and old_name == name
            if was_live and not section.is_rejected and is_same and old_section is not None:
                self.kept.append((name, old_section, section))
                continue
            if was_live:
                self.removed.append(old_name)
            if not section.is_rejected:
                self.added.append(name)

    def actions(self) -> list[Jingle]:
        found = []
        if self.removed:
            jingle = self._jingle("content-remove")
            for name in self.removed:
                jingle.append(_content(name, self._creator(name)))
            found.append(jingle)
        found += [self._said("content-add", self.added, is_new=True)] if self.added else []
        found += self._modifications()
        found += self._transports()
        changed = [name for name, old, new in self.kept if _codecs(old) != _codecs(new)]
        found += [self._said("description-info", changed)] if changed else []
        return found

    def _modifications(self) -> list[Jingle]:
        jingle = self._jingle("content-modify")
        for name, old, new in self.kept:
            if old.direction != new.direction:
                content = _content(name, self._creator(name))
                senders = direction_to_senders(new.direction, is_from_initiator=self.is_from_initiator)
                content["senders"] = senders
                jingle.append(content)
        return [jingle] if jingle["contents"] else []

    def _transports(self) -> list[Jingle]:
        replaced, restarted = [], self._jingle("transport-info")
        for name, old, new in self.kept:
            if _certificate(old) != _certificate(new) and new.fingerprints:
                replaced.append(name)
            elif new.ice_ufrag and (old.ice_ufrag, old.ice_pwd) != (new.ice_ufrag, new.ice_pwd):
                # COMPAT Conversations: a transport-info with new credentials and no candidates offers a restart; one
                # with candidates would be taken for the answer to one.
                content = _content(name, self._creator(name))
                content.append(_transport(new.ice_ufrag, new.ice_pwd))
                restarted.append(content)
        found = [self._said("transport-replace", replaced)] if replaced else []
        found += [restarted] if restarted["contents"] else []
        rest = tuple(section for name, _, section in self.kept if name not in replaced)
        names = tuple(name for name, _, _ in self.kept if name not in replaced)
        candidates = fragment_to_jingle(
            replace(self.new, media=rest),
            is_from_initiator=self.is_from_initiator,
            creators=self.creators,
            known=self.old,
            names=names,
        )
        return found if candidates is None else [*found, candidates]

    def _said(self, action: str, names: list[str], *, is_new: bool = False) -> Jingle:
        return sdp_to_jingle(
            self.new,
            action=action,
            is_from_initiator=self.is_from_initiator,
            creators={} if is_new else {name: self._creator(name) for name in names},
            names=names,
            known=self.old,
        )

    def _creator(self, name: str) -> str:
        return self.creators.get(name, "initiator" if self.is_from_initiator else "responder")

    def _jingle(self, action: str) -> Jingle:
        jingle = Jingle()
        jingle["action"] = action
        return jingle


def _certificate(section: MediaDescription) -> frozenset[str]:
    return frozenset(value.strip().upper() for value in section.fingerprints)


def _codecs(section: MediaDescription) -> list[tuple[object, ...]]:
    return [(codec.payload_type, *codec.identity, codec.parameters) for codec in section.codecs]
