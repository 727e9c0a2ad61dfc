"""The contents of one call of the Jingle test client: what both sides said of each, and the media of aiortc for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aiortc import RTCCertificate, RTCIceServer

from tests.support.jingle_media import Camera, Medium, Path, Senses, Voice, common_payloads, own_payloads
from tests.support.jingle_xml import Content, Payload, Transport


@dataclass(frozen=True)
class Abilities:
    """What a device can: see `JingleClient`."""

    hertz: float
    trickles: bool
    audio: tuple[str, ...]
    video: tuple[str, ...]
    setup: str
    servers: tuple[RTCIceServer, ...]
    is_relayed: bool
    certificate: RTCCertificate

    def payloads(self, kind: str) -> tuple[Payload, ...]:
        return own_payloads(kind, self.audio if kind == "audio" else self.video)


class CallContents:
    """Offers, answers and connects contents.

    Attributes:
        remote: contents that stand, by name, as the other side described them.
        own: the same from our side, and those that we offered.
        bundle: names of contents that share the path of the first of them.
    """

    def __init__(self, abilities: Abilities, *, is_outgoing: bool) -> None:
        self.abilities = abilities
        self.role = "initiator" if is_outgoing else "responder"
        self.remote: dict[str, Content] = {}
        self.own: dict[str, Content] = {}
        self.bundle: list[str] = []
        self.senses = Senses()
        self.voice = Voice(abilities.hertz)
        self._paths: dict[str, Path] = {}
        self._mediums: dict[str, Medium] = {}
        self._is_closed = False

    def takes(self, content: Content, *, video: bool) -> bool:
        """Whether it has a codec of ours, and is no video that nobody wants."""
        if content.media not in ("audio", "video") or (content.media == "video" and not video):
            return False
        return bool(common_payloads(self.abilities.payloads(content.media), content.payloads))

    async def offer(self, kind: str, name: str) -> Content:
        """A content of ours, on a path of its own until the other side agrees to bundle."""
        path = self._paths[name] = self._new_path()
        self._mediums[name] = self._new_medium(kind, path)
        transport = await path.local("actpass", has_candidates=not self.abilities.trickles)
        sources = (self._mediums[name].sender._ssrc,)
        payloads = self.abilities.payloads(kind)
        self.own[name] = Content(name, self.role, "both", kind, payloads, sources, transport)
        return self.own[name]

    def join_bundle(self, names: Sequence[str]) -> None:
        """The other side adds contents to the path of one that stands."""
        if len(names) > 1 and names[0] in self._paths:
            self.bundle = list(names)

    async def answer(self, content: Content) -> Content:
        """Take a content of the other side, and connect it."""
        leader = self.bundle[0] if content.name in self.bundle else content.name
        path = self._paths[content.name] = self._paths.get(leader) or self._new_path()
        medium = self._mediums[content.name] = self._new_medium(content.media, path)
        setup = path.setup or {"active": "passive", "passive": "active"}.get(
            _transport(content).setup, self.abilities.setup
        )
        self.own[content.name] = replace(
            content,
            senders=content.senders or "both",
            payloads=common_payloads(self.abilities.payloads(content.media), content.payloads),
            sources=(medium.sender._ssrc,),
            transport=await path.local(setup, has_candidates=not self.abilities.trickles),
        )
        await self.connect(content, is_client=setup == "active")
        return self.own[content.name]

    async def connect(self, remote: Content, *, is_client: bool) -> None:
        """Both sides of a content are known: connect its path, then send and receive."""
        name, own = remote.name, self.own[remote.name]
        if name in self.bundle and self._paths[name] is not self._paths[self.bundle[0]]:
            await self._paths[name].close()
            self._paths[name] = self._paths[self.bundle[0]]
            self._mediums[name].use(self._paths[name])
        path = self._paths[name]
        await path.take(_transport(remote))
        path.connect(is_client=is_client)
        self.remote[name] = remote
        self._mediums[name].start(path, common_payloads(own.payloads, remote.payloads), own.payloads)

    async def take_candidates(self, content: Content) -> bool:
        """Take trickled candidates; False when there is no such path yet."""
        if content.name not in self._paths:
            return False
        await self._paths[content.name].take(_transport(content))
        return True

    def candidates(self, content: Content) -> Content:
        """The candidates alone of a content of ours, to be trickled."""
        own = replace(_transport(content), fingerprints=(), candidates=self._paths[content.name].candidates())
        return Content(content.name, content.creator, transport=own)

    def take_senders(self, content: Content) -> None:
        """XEP-0166 section 7.2.6: `senders` says who sends; when it is not us, we stop."""
        if content.name in self._mediums:
            self._mediums[content.name].track.is_paused = content.senders not in ("both", self.role)

    @property
    def is_connected(self) -> bool:
        return bool(self._mediums) and all(self._paths[name].has_connected.is_set() for name in self._mediums)

    async def drop(self, name: str) -> None:
        """Stop a content."""
        self.remote.pop(name, None)
        self.own.pop(name, None)
        medium, path = self._mediums.pop(name, None), self._paths.pop(name, None)
        try:
            if medium is not None:
                await medium.stop()
        finally:
            if path is not None and path not in self._paths.values():
                await path.close()

    async def close(self) -> None:
        """Stop all contents, also those that are being set up, and take no new ones."""
        self._is_closed = True
        await asyncio.gather(*(self.drop(name) for name in list(self._paths)))

    def __str__(self) -> str:
        return ", ".join(f"{name}: {path.state}" for name, path in self._paths.items()) or "no media"

    def _new_path(self) -> Path:
        assert not self._is_closed, "the call is over"
        abilities = self.abilities
        return Path(
            abilities.certificate,
            abilities.servers,
            is_relayed=abilities.is_relayed,
            is_controlling=self.role == "initiator",
        )

    def _new_medium(self, kind: str, path: Path) -> Medium:
        return Medium(self.voice if kind == "audio" else Camera(), path, self.senses)


def _transport(content: Content) -> Transport:
    return content.transport or Transport()


def with_candidates(offered: Sequence[Content], more: Content) -> list[Content]:
    """An offer that was not answered yet, with candidates that came after it."""
    return [
        replace(
            content,
            transport=replace(
                _transport(content), candidates=_transport(content).candidates + _transport(more).candidates
            ),
        )
        if content.name == more.name
        else content
        for content in offered
    ]
