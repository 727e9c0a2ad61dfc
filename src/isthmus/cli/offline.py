"""Operations without a running server: the same administration, directly on the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.admin.client import actor
from isthmus.admin.doctor import Examination
from isthmus.bus.in_process import InProcessBus
from isthmus.cli.configuration_file import load_configuration
from isthmus.config import Configuration
from isthmus.net.dns import DnsClient
from isthmus.net.media_examination import MediaExamination
from isthmus.net.prosody_accounts import ProsodyAccounts
from isthmus.net.prosody_process import prosody_paths
from isthmus.net.system_clock import SystemClock
from isthmus.ports import Store
from isthmus.services.accounts import Accounts, service_locals
from isthmus.services.administration import Administration
from isthmus.services.calls.operations import CallOperations
from isthmus.services.contact_import import ContactImport
from isthmus.services.contacts import Contacts
from isthmus.services.directory import Directory
from isthmus.services.explanation import Explanation, offered_by
from isthmus.services.photos import Photos
from isthmus.services.policing import Policing
from isthmus.store.sql_store import SqlStore
from isthmus.trace import Trace


def call_offline(data_directory: Path, operation: str, arguments: Mapping[str, object]) -> Any:
    """Open the store, run one operation, close. Raises LocalError."""
    return asyncio.run(_call(load_configuration(data_directory), operation, arguments))


async def _call(configuration: Configuration, operation: str, arguments: Mapping[str, object]) -> Any:
    store = SqlStore(configuration.data_directory, configuration.store_url)
    await store.open()
    try:
        bus = InProcessBus()
        administration = await assemble(configuration, store, bus)
        result = await administration.call(operation, arguments, actor=actor())
        await bus.drained()
        return result
    finally:
        await store.close()


async def assemble(configuration: Configuration, store: Store, bus: InProcessBus) -> Administration:
    """Build what operations need, without any connection, and load it. Raises StoreError."""
    clock = SystemClock()
    trace = Trace(clock.wall)
    directory = Directory(configuration, store, bus)
    policing = Policing(
        store,
        bus,
        clock,
        trace,
        business_domains=[domain.name for domain in configuration.domains],
        consumer_domain=configuration.xmpp.consumer_domain,
        defaults=configuration.policy,
        service_locals=service_locals(configuration),
    )
    contacts = Contacts(store, bus, directory, policing, clock, trace)
    await directory.load()
    await policing.load()
    await contacts.load()
    consumers = ProsodyAccounts(prosody_paths(configuration)) if configuration.xmpp.embedded else None
    return Administration(
        configuration,
        store,
        policing,
        contacts,
        Accounts(configuration, store, directory, policing, bus, clock, consumers),
        Explanation(store, policing, directory, contacts, trace, offered=offered_by(configuration)),
        clock,
        contact_import=ContactImport(contacts, directory, store, clock),
        is_live=False,
        doctor=Examination(
            configuration,
            DnsClient(configuration.sip.dns_servers),
            clock.wall,
            media=MediaExamination(configuration, is_live=False).examine,
        ),
        more={
            **Photos(directory, store, bus, clock).functions,
            **CallOperations(store, clock, None).functions,
        },
    )
