"""Fills the store of a gateway that is not running: people, contacts, registrations, publications, subscriptions.

Through the store's own rows and statements, so that a bench need not wait for 10,000 sign-ins before it can begin.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from sqlalchemy import Table, create_engine

from isthmus.interworking.addresses import address_to_sip_uri
from isthmus.model import Address, Authorisation, AuthorisationState, User
from isthmus.ports import Binding, Flow, Publication, SubscriptionRecord
from isthmus.services.watch import Watch
from isthmus.sip.dialog import Dialog
from isthmus.sip.headers import NameAddr
from isthmus.sip.uri import SipUri
from isthmus.store import rows, schema
from isthmus.store.row_statements import Row, insert_rows
from isthmus.store.sql_store import DATABASE_FILE, SqlStore
from tests.bench.phones import ALGORITHM, PIDF, Phones

_LIFETIME_SECONDS = 3_600.0


class Preload:
    """What the store of `data` will hold; `write` makes it so.

    Args:
        data: the data directory.
        phones: the hosted people and where their phones are.
        sip_port: where the gateway will listen.
    """

    def __init__(self, data: Path, phones: Phones, sip_port: int) -> None:
        self._data, self._phones = data, phones
        self._now = time.time()
        self._flow = Flow("udp", "127.0.0.1", phones.port, "127.0.0.1", sip_port)
        self._rows: dict[Table, list[Row]] = {}

    def _add(self, table: Table, row: Row) -> None:
        self._rows.setdefault(table, []).append(row)

    def address(self, number: int) -> Address:
        """A hosted person."""
        return Address(self._phones.phones[number].user, self._phones.domain)

    def users(self) -> None:
        """Everybody who has a phone."""
        for phone in self._phones.phones:
            address = Address(phone.user, self._phones.domain)
            user = User(address, f"Person {phone.user}", {ALGORITHM: phone.ha1}, created_at=self._now)
            self._add(schema.users, rows.user_row(user))

    def registrations(self) -> None:
        """Every phone is signed in."""
        for number, phone in enumerate(self._phones.phones):
            binding = Binding(
                self.address(number),
                f"sip:{phone.user}@127.0.0.1:{self._phones.port}",
                call_id=f"register-{phone.user}@bench",
                cseq=0,
                expires_at=self._now + _LIFETIME_SECONDS,
                flow=self._flow,
                user_agent="bench phone 1.0",
            )
            self._add(schema.bindings, rows.binding_row(0, binding))

    def publications(self) -> None:
        """Every phone says that its owner is there."""
        for number, phone in enumerate(self._phones.phones):
            body = PIDF.format(user=phone.user, domain=self._phones.domain, activity="away", note="out for lunch")
            phone.etag = f"etag{number}"
            publication = Publication(
                self.address(number), phone.etag, body.encode(), "application/pidf+xml", self._now + _LIFETIME_SECONDS
            )
            self._add(schema.publications, rows.publication_row(publication))

    def authorisation(self, watcher: Address, presentity: Address) -> None:
        """`watcher` may see `presentity`."""
        row = Authorisation(watcher, presentity, AuthorisationState.ACTIVE, self._now, self._now)
        self._add(schema.authorisations, rows.authorisation_row(row))

    def subscription(self, watcher: Address, presentity: Address, *, members: Sequence[Address] = ()) -> None:
        """The phone of `watcher` subscribed to `presentity`, or with `members` to the list of them."""
        remote, local = address_to_sip_uri(watcher), address_to_sip_uri(presentity)
        key = f"{watcher.local}-{presentity.local}@bench"
        watch = Watch(
            key=f"{key};ours",
            package="presence",
            event_id="",
            watcher=watcher,
            resource=presentity,
            dialog=Dialog(
                call_id=key,
                local=NameAddr(local).with_param("tag", "ours"),
                remote=NameAddr(remote).with_param("tag", "theirs"),
                local_contact=SipUri("sip", self._flow.local_host, user=presentity.local, port=self._flow.local_port),
                remote_target=SipUri("sip", "127.0.0.1", user=watcher.local, port=self._phones.port),
                remote_cseq=1,
            ),
            flow=self._flow,
            expires_at=0.0,
            is_list=bool(members),
            members=tuple(members),
        )
        record: SubscriptionRecord = watch.to_record(self._now + _LIFETIME_SECONDS)
        self._add(schema.subscriptions, rows.subscription_row(record))

    def contacts(self, pairs: Iterable[tuple[Address, Address]]) -> None:
        """Both people of each pair may see each other."""
        for one, other in pairs:
            self.authorisation(one, other)
            self.authorisation(other, one)

    async def write(self) -> None:
        """Make the schema and write all rows."""
        store = SqlStore(self._data)
        await store.open()
        await store.close()
        await asyncio.to_thread(self._write)

    def _write(self) -> None:
        engine = create_engine(f"sqlite:///{self._data / DATABASE_FILE}")
        try:
            with engine.begin() as connection:
                for table, found in self._rows.items():
                    insert_rows(table).run(connection, found)
        finally:
            engine.dispose()
        self._rows.clear()
