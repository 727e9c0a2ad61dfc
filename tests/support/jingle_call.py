"""One call of the Jingle test client: its signalling (XEP-0166, 0167, 0353) and its media."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

from tests.support.jingle_contents import CallContents, with_candidates
from tests.support.jingle_xml import DTMF, RTP_INFO, TRANSFER, Content, bundled_names, contents_of, jingle, reason_of
from tests.support.processes import wait_until
from tests.support.tones import Sound, wait_for_silence, wait_for_tone

if TYPE_CHECKING:
    from tests.support.jingle_client import JingleClient

SECONDS = 15.0


class JingleCall:
    """A call from either side.

    Attributes:
        peer: full JID of the other device once it is known, before that what was called.
        log: actions and proposals in order, `> session-initiate` sent, `< proceed` received.
        media: what a proposal asked for, or what the offer has.
    """

    def __init__(
        self,
        client: JingleClient,
        sid: str,
        peer: str,
        *,
        is_outgoing: bool,
        video: bool = False,
        is_proposed: bool = False,
    ) -> None:
        self.client, self.sid, self.peer = client, sid, peer
        self.is_outgoing, self.is_proposed = is_outgoing, is_proposed
        self.log: list[str] = []
        self.media: list[str] = []
        self.ending = ""
        self._wanted = ("audio", "video") if video else ("audio",)
        self._offered: list[Content] = []
        self._media = CallContents(client.abilities, is_outgoing=is_outgoing)
        self._accepted_proposal = False
        self._has_offer, self._changed = asyncio.Event(), asyncio.Event()
        self._told: asyncio.Queue[Element] = asyncio.Queue()
        self._unread: list[str] = []
        self._worker = client.spawn(self._work())
        self._closing: asyncio.Task[None] | None = None

    # --- what a person does ---

    async def ring(self) -> None:
        """Tell the caller that it rings here."""
        if self.is_proposed and not self._has_offer.is_set():
            self._propose(self.peer, "ringing")
        else:
            await self._tell_info("ringing")

    async def accept(self, *, video: bool = False) -> None:
        """Take the call, with video if it is on offer and wanted."""
        if self.is_proposed and not self._has_offer.is_set():
            self._accepted_proposal = True
            self._propose(self.client.bare, "accept")
            self._propose(self.peer, "proceed")
        async with asyncio.timeout(SECONDS):
            await self._has_offer.wait()
        refused = [c for c in self._offered if not self._media.takes(c, video=video)]
        kept = [c for c in self._offered if c not in refused]
        answers = [await self._media.answer(content) for content in kept]
        bundled = [name for name in self._media.bundle if any(c.name == name for c in kept)]
        await self._send("session-accept", answers, bundled=bundled, responder=self.client.jid)
        for content in refused:
            await self._send("content-reject", [Content(content.name, content.creator)], reason="decline")
        await self._trickle(answers)

    async def decline(self, reason: str = "decline") -> None:
        """Do not take the call; `busy` is another reason. All our devices stop ringing after a proposal."""
        if self.is_proposed and not self._has_offer.is_set():
            self._propose(self.client.bare, "reject", reason if reason != "decline" else "")
            self._propose(self.peer, "reject", reason if reason != "decline" else "")
            await self._end(reason)
        else:
            await self.hang_up(reason)

    async def hang_up(self, reason: str = "success", text: str = "") -> None:
        """End the call, or take it back while it rings (`cancel`)."""
        if self.is_outgoing and not self._media.own:
            self._propose(self.peer, "retract", "cancel")
        else:
            await self._send("session-terminate", reason=reason, text=text)
        await self._end(reason)

    async def hold(self) -> None:
        """Take nothing and send nothing for a while: only we would send, and do not."""
        await self._modify("initiator" if self.is_outgoing else "responder")
        await self._tell_info("hold")
        self._media.voice.is_paused = True

    async def resume(self) -> None:
        """Go on after a hold."""
        await self._modify("both")
        await self._tell_info("unhold")
        self._media.voice.is_paused = False

    async def mute(self) -> None:
        """Say nothing, and say so."""
        self._media.voice.is_muted = True
        await self._tell_info("mute")

    async def unmute(self) -> None:
        self._media.voice.is_muted = False
        await self._tell_info("unmute")

    def say(self, hertz: float) -> None:
        """Say another tone, which nobody can have heard before."""
        self._media.voice.hertz = hertz

    async def press(self, digits: str) -> None:
        """Send digits in signalling (XEP-0181)."""
        for digit in digits:
            await self._send("session-info", info=f"{{{DTMF}}}dtmf", info_attributes={"code": digit, "duration": "200"})

    async def transfer(self, to: str) -> None:
        """Ask the other side to call somebody else instead (XEP-0251)."""
        await self._send("session-info", info=f"{{{TRANSFER}}}transfer", info_attributes={"to": to})

    async def add_video(self) -> None:
        """Offer video in the call; `is_showing` tells when the other side took it."""
        content = await self._media.offer("video", "video2" if "video" in self._media.own else "video")
        await self._send("content-add", [content])
        await self._trickle([content])

    async def remove_video(self) -> None:
        """Take video out of the call."""
        for name in [name for name, content in self._media.remote.items() if content.media == "video"]:
            creator = self._media.remote[name].creator
            await self._send("content-remove", [Content(name, creator)], reason="success")
            await self._media.drop(name)

    # --- what a person sees and hears ---

    async def is_ringing(self) -> None:
        """Return when the other side says that it rings."""
        await self._heard_of("< ringing")

    async def is_accepted(self) -> None:
        """Return when the other side took the call."""
        await self._heard_of("< session-accept")

    async def told(self, what: str, seconds: float = SECONDS) -> None:
        """Return when the other side told this: an action, the name of a session-info, a proposal's kind."""
        await self._heard_of(f"< {what}", seconds)

    async def is_connected(self, seconds: float = SECONDS) -> None:
        """Return when ICE and DTLS are through for every content."""
        await self._until(
            lambda: self._media.is_connected,
            "the media to connect",
            seconds,
        )

    async def is_over(self, seconds: float = SECONDS) -> str:
        """Return the reason for which the call ended."""
        await self._until(lambda: self.has_ended, "the call to end", seconds)
        return self.ending

    async def hears(self, hertz: float, seconds: float = SECONDS) -> None:
        await wait_for_tone(self.heard, hertz, seconds)

    async def hears_nothing(self) -> None:
        await wait_for_silence(self.heard)

    async def sees(self, pictures: int = 5, seconds: float = SECONDS) -> None:
        """Return when this many more pictures arrived."""
        wanted = self._media.senses.pictures + pictures
        await wait_until(
            lambda: self._media.senses.pictures >= wanted, "pictures to arrive", seconds, detail=self._story
        )

    def heard(self) -> Sound:
        """The sound of the last seconds."""
        return self._media.senses.heard()

    @property
    def has_ended(self) -> bool:
        return bool(self.ending)

    @property
    def awaits_offer(self) -> bool:
        """We said `proceed`, and its session-initiate may come."""
        return self._accepted_proposal and not self._has_offer.is_set()

    @property
    def contents(self) -> dict[str, Content]:
        """What stands, by name, as the other side described it."""
        return self._media.remote

    # --- signalling ---

    async def initiate(self) -> None:
        """Send the offer to `peer`."""
        contents = [await self._media.offer(kind, kind) for kind in self._wanted]
        self._media.bundle = [c.name for c in contents] if self.client.bundles and len(contents) > 1 else []
        await self._send("session-initiate", contents, bundled=self._media.bundle, initiator=self.client.jid)
        await self._trickle(contents)

    def feed(self, sender: str, root: Element) -> None:
        """Take a `<jingle/>` that was acknowledged already; they are worked off in order."""
        if root.get("action") == "session-initiate":
            self.peer = sender
            self._offered = contents_of(root)
            self.media = [content.media for content in self._offered]
            names = bundled_names(root)
            self._media.bundle = names if self.client.bundles and len(names) > 1 else []
            self._note("< session-initiate")
            self._has_offer.set()
        else:
            self._told.put_nowait(root)

    def on_proposal(self, sender: str, kind: str, found: Element) -> None:
        """Take a message of XEP-0353 about this call."""
        is_own = sender.partition("/")[0] == self.client.bare
        if is_own and sender == self.client.jid:
            return
        self._note(f"< {kind}")
        if kind == "proceed" and self.is_outgoing and not self._media.own:
            self.peer = sender
            self.client.spawn(self.initiate())
        elif kind == "accept" or (kind == "proceed" and is_own):
            self._end_soon("answered elsewhere")
        elif kind == "reject":
            self._end_soon(reason_of(found) or "decline")
        elif kind == "retract":
            self._end_soon(reason_of(found) or "cancel")

    async def _work(self) -> None:
        """Work off what the other side tells."""
        steps: dict[str, Callable[[Element], Coroutine[Any, Any, None]]] = {
            "session-accept": self._on_accept,
            "session-terminate": self._on_terminate,
            "session-info": self._on_info,
            "transport-info": self._on_transport_info,
            "content-add": self._on_content_add,
            "content-accept": self._on_accept,
            "content-reject": self._on_content_gone,
            "content-remove": self._on_content_gone,
            "content-modify": self._on_modify,
        }
        while True:
            root = await self._told.get()
            action = root.get("action", "")
            if action in steps:
                await steps[action](root)
            if action != "session-info":
                self._note(f"< {action}")

    async def _on_accept(self, root: Element) -> None:
        if root.get("action") == "session-accept":
            agreed = bundled_names(root)
            self._media.bundle = agreed if self._media.bundle and len(agreed) > 1 else []
        for content in contents_of(root):
            await self._media.connect(
                content, is_client=content.transport is not None and content.transport.setup == "passive"
            )

    async def _on_terminate(self, root: Element) -> None:
        self._end_soon(reason_of(root) or "success")  # which ends this work as well

    async def _on_info(self, root: Element) -> None:
        for child in root:
            namespace, _, name = child.tag[1:].partition("}")
            if namespace in (RTP_INFO, TRANSFER):
                self._note(f"< {name}")
            elif namespace == DTMF and name == "dtmf":
                self._note(f"< digit {child.get('code')}")

    async def _on_transport_info(self, root: Element) -> None:
        for content in contents_of(root):
            if not await self._media.take_candidates(content):
                self._offered = with_candidates(self._offered, content)  # we have not answered yet

    async def _on_content_add(self, root: Element) -> None:
        self._media.join_bundle(bundled_names(root) if self.client.bundles else [])
        for content in contents_of(root):
            if not self._media.takes(content, video=True):
                await self._send(
                    "content-reject", [Content(content.name, content.creator)], reason="failed-application"
                )
                continue
            answer = await self._media.answer(content)
            await self._send("content-accept", [answer], bundled=self._media.bundle)
            await self._trickle([answer])

    async def _on_content_gone(self, root: Element) -> None:
        for content in contents_of(root):
            await self._media.drop(content.name)

    async def _on_modify(self, root: Element) -> None:
        """XEP-0167: senders says who sends; when it is not us, we stop."""
        for content in contents_of(root):
            self._media.take_senders(content)

    async def _modify(self, senders: str) -> None:
        contents = [Content(c.name, c.creator, senders) for c in self._media.remote.values()]
        await self._send("content-modify", contents)

    async def _tell_info(self, name: str) -> None:
        await self._send("session-info", info=f"{{{RTP_INFO}}}{name}")

    async def _send(self, action: str, contents: Sequence[Content] = (), **more: Any) -> None:
        self.log.append(f"> {action}")
        await self.client.request(self.peer, jingle(action, self.sid, contents, **more))

    def _propose(self, to: str, kind: str, reason: str = "") -> None:
        self.log.append(f"> {kind}")
        self.client.propose(to, kind, self.sid, reason=reason)

    async def _trickle(self, contents: Sequence[Content]) -> None:
        if self.client.abilities.trickles:
            for content in contents:
                await self._send("transport-info", [self._media.candidates(content)])

    # --- its end, and waiting ---

    def _end_soon(self, reason: str) -> None:
        self.client.spawn(self._end(reason))

    async def _end(self, reason: str) -> None:
        self.ending = self.ending or reason
        self._changed.set()
        await self.close()

    async def close(self) -> None:
        """Stop the media however far they got, in bounded time; nothing is signalled.

        Whoever waits may be cancelled, the closing goes on; all wait for the same one.
        """
        self._closing = self._closing or asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        await self._media.close()

    def _note(self, entry: str) -> None:
        self.log.append(entry)
        self._unread.append(entry)
        self._changed.set()

    async def _heard_of(self, entry: str, seconds: float = SECONDS) -> None:
        await self._until(lambda: entry in self._unread, f"{entry!r}", seconds)
        self._unread.remove(entry)

    async def _until(self, is_so: Callable[[], bool], what: str, seconds: float) -> None:
        await wait_until(is_so, what, seconds, detail=self._story)

    def _story(self) -> str:
        return f"{self.client.jid}: {self.log}, {self._media}, ended: {self.ending!r}"
