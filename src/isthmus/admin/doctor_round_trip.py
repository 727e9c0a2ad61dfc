"""The doctor's round trips through the running server (edge case 48): each side begins a conversation.

A temporary user `doctor@<hosted domain>` signs in with a phone of its own. Direction "sip": the phone writes to the
echo address. Direction "xmpp": a stanza goes out on the component stream, through the XMPP server, back in as a message
to the echo address, whose answer must ring at the phone. Together they use everything a real message uses: digest,
policy, journal, registrar, and the ways in and out on both sides.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Protocol

from isthmus.admin.doctor_phone import DoctorPhone
from isthmus.errors import IsthmusError, LinkDownError, TransportError
from isthmus.interworking.addresses import address_to_jid, address_to_sip_uri
from isthmus.model import Address, User
from isthmus.ports import Bus, Store, XmppLink
from isthmus.services.accounts import DOCTOR_LOCAL, ECHO_LOCAL
from isthmus.services.echo_probe import ProbeResult
from isthmus.services.events import UserRemoved
from isthmus.sip.digest import ha1
from isthmus.sip.message import SipResponse
from isthmus.xmpp.stanza import element, escape_text

# A loaded server still answers in well under a second; the journal may wait for a slow disk.
ECHO_SECONDS = 10.0
REGISTRATION_SECONDS = 60


class Directory(Protocol):
    """The part of `services.directory` that the doctor needs for its temporary account."""

    @property
    def hosted_domains(self) -> tuple[str, ...]:
        """Domains whose users register with us."""

    async def load(self) -> None:
        """Read users again."""

    async def save_user(self, user: User) -> None:
        """Insert or replace a hosted user."""


class RoundTrips:
    """Implements `services.echo_probe.EchoProbe`.

    Args:
        links: component streams by domain.
        bound: where the endpoint listens, by transport.
    """

    def __init__(
        self,
        directory: Directory,
        store: Store,
        bus: Bus,
        links: Mapping[str, XmppLink],
        bound: Callable[[], Mapping[str, tuple[str, int]]],
    ) -> None:
        self._directory = directory
        self._store = store
        self._bus = bus
        self._links = links
        self._bound = bound
        # Two examinations at once would share the account, and take each other's answers.
        self._turn = asyncio.Lock()

    async def round_trip(self, direction: str) -> ProbeResult:
        """Try one way in ("sip" or "xmpp") and the way back out; never raises for what does not work."""
        domains, listener = self._directory.hosted_domains, self._bound().get("udp")
        if not domains:
            return _not_tried("no business domain is hosted here; ask the PBX with a call of your own")
        if listener is None:
            return _not_tried("there is no UDP listener for the doctor's phone")
        began = asyncio.get_running_loop().time()
        try:
            async with self._turn:
                detail = await self._try(direction, domains[0], listener)
            has_returned = True
        except (IsthmusError, TimeoutError) as error:
            has_returned, detail = False, str(error) or f"no echo within {ECHO_SECONDS:.0f} s"
        return ProbeResult(has_returned, asyncio.get_running_loop().time() - began, detail)

    async def _try(self, direction: str, domain: str, listener: tuple[str, int]) -> str:
        doctor, echo = Address(DOCTOR_LOCAL, domain), Address(ECHO_LOCAL, domain)
        password, text = secrets.token_urlsafe(24), f"isthmus doctor {secrets.token_hex(8)}"
        phone = DoctorPhone(address_to_sip_uri(doctor), password)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener[0], listener[0])  # noqa: S104 - compared, not bound
        await phone.open(host, listener[1])
        try:
            digests = {"SHA-256": ha1(doctor.local, domain, password, "SHA-256")}
            await self._directory.save_user(User(doctor, display_name="Doctor", digests=digests))
            _expect_success(await phone.register(REGISTRATION_SECONDS), "registering")
            if direction == "sip":
                _expect_success(await phone.write(address_to_sip_uri(echo), text), "the message to the echo address")
            else:
                self._send_stanza(doctor, echo, text)
            await _heard(phone, text)
            await phone.register(0)
        finally:
            phone.close()
            await self._store.delete_user(doctor)
            await self._directory.load()
            self._bus.send(doctor, UserRemoved(doctor))
        way = "SIP phone -> journal -> SIP phone" if direction == "sip" else "XMPP server -> journal -> SIP phone"
        return f"the echo came back: {way}"

    def _send_stanza(self, doctor: Address, echo: Address, text: str) -> None:
        link = self._links.get(doctor.domain)
        if link is None or not link.is_connected:
            raise LinkDownError(f"the component {doctor.domain} is not connected")
        attributes = {
            "type": "chat",
            "from": address_to_jid(doctor, "doctor"),
            "to": address_to_jid(echo),
            "id": secrets.token_hex(8),
        }
        link.send(element("message", attributes, element("body", None, escape_text(text))))


async def _heard(phone: DoctorPhone, text: str) -> None:
    """Wait for the echo; messages of others (a notice to the new user, say) are passed over. Raises TimeoutError."""
    async with asyncio.timeout(ECHO_SECONDS):
        while text not in await phone.texts.get():
            pass


def _expect_success(response: SipResponse, what: str) -> None:
    if not response.is_success:
        raise TransportError(f"{what} was answered {response.status} {response.reason}")


def _not_tried(why: str) -> ProbeResult:
    return ProbeResult(False, 0.0, why, is_tried=False)
