"""Rows of the tables from and to the dataclasses of `ports` and `model`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from isthmus.errors import StoreError
from isthmus.model import Address, Authorisation, AuthorisationState, User
from isthmus.ports import Binding, Crossing, Flow, Publication, SubscriptionRecord
from isthmus.store.row_statements import Row


class Addresses(dict[str, Address]):
    """Addresses by their text, each made once: a contact list names the same people over and over."""

    def __missing__(self, text: str) -> Address:
        # Stored in canonical form, so it is only cut; folding every one again would dominate the start.
        local, _, domain = text.rpartition("@")
        address = self[text] = Address(local, sys.intern(domain))
        return address


def to_json(value: object) -> str:
    """Return `value` as JSON text. Raises StoreError when it has no JSON form."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise StoreError(f"a value cannot be written as JSON: {error}") from error


def user_row(user: User) -> Row:
    """Return the row of `users`."""
    return (
        str(user.address),
        user.address.domain,
        user.display_name,
        to_json(user.digests),
        user.is_disabled,
        to_json(user.groups),
        user.created_at,
    )


def user_from_row(row: Sequence[Any]) -> User:
    """Read a row of `users`."""
    address, _, display_name, digests, is_disabled, groups, created_at = row
    return User(
        Addresses()[address],
        display_name,
        orjson.loads(digests),
        bool(is_disabled),
        tuple(orjson.loads(groups)),
        created_at,
    )


def consumer_row(user: User) -> Row:
    """Return the row of `consumers`."""
    return (str(user.address), user.display_name, user.is_disabled, to_json(user.groups), user.created_at)


def consumer_from_row(row: Sequence[Any]) -> User:
    """Read a row of `consumers`."""
    address, display_name, is_disabled, groups, created_at = row
    return User(Addresses()[address], display_name, {}, bool(is_disabled), tuple(orjson.loads(groups)), created_at)


def authorisation_row(authorisation: Authorisation) -> Row:
    """Return the row of `authorisations`."""
    return (
        str(authorisation.watcher),
        str(authorisation.presentity),
        str(authorisation.state),
        authorisation.asked_at,
        authorisation.decided_at,
        authorisation.note,
    )


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Make many long-lived objects without searching them for cycles again and again: that halves the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def authorisations_from_rows(rows: Iterable[Sequence[Any]], addresses: Addresses) -> list[Authorisation]:
    """Read rows of `authorisations`; there may be hundreds of thousands."""
    states = {str(state): state for state in AuthorisationState}
    return [
        Authorisation(addresses[watcher], addresses[presentity], states[state], asked_at, decided_at, note)
        for watcher, presentity, state, asked_at, decided_at, note in rows
    ]


def binding_row(position: int, binding: Binding) -> Row:
    """Return the row of `bindings`; `position` keeps the order within one user."""
    details = {
        "call_id": binding.call_id,
        "cseq": binding.cseq,
        "flow": binding.flow,  # as an object: orjson knows dataclasses
        "parameters": binding.parameters,
        "q": binding.q,
        "instance": binding.instance,
        "reg_id": binding.reg_id,
        "path": binding.path,
        "user_agent": binding.user_agent,
        "accepts": sorted(binding.accepts),
    }
    return (str(binding.address), position, binding.contact, binding.expires_at, to_json(details))


def binding_from_row(row: Sequence[Any]) -> Binding:
    """Read a row of `bindings`."""
    address, _, contact, expires_at, text = row
    details = orjson.loads(text)
    flow = details["flow"]
    return Binding(
        address=Addresses()[address],
        contact=contact,
        call_id=details["call_id"],
        cseq=details["cseq"],
        expires_at=expires_at,
        flow=Flow(**{**flow, "peer_names": tuple(flow["peer_names"])}),
        parameters=tuple((name, value) for name, value in details["parameters"]),
        q=details["q"],
        instance=details["instance"],
        reg_id=details["reg_id"],
        path=tuple(details["path"]),
        user_agent=details["user_agent"],
        accepts=frozenset(details["accepts"]),
    )


def publication_row(publication: Publication) -> Row:
    """Return the row of `publications`."""
    return (
        str(publication.address),
        publication.etag,
        publication.body,
        publication.content_type,
        publication.expires_at,
    )


def publication_from_row(row: Sequence[Any]) -> Publication:
    """Read a row of `publications`."""
    address, etag, body, content_type, expires_at = row
    return Publication(Addresses()[address], etag, bytes(body), content_type, expires_at)


def subscription_row(record: SubscriptionRecord) -> Row:
    """Return the row of `subscriptions`."""
    return (record.key, str(record.watcher), str(record.presentity), record.expires_at, to_json(record.state))


def subscriptions_from_rows(rows: Iterable[Sequence[Any]], addresses: Addresses) -> list[SubscriptionRecord]:
    """Read rows of `subscriptions`."""
    return [
        SubscriptionRecord(key, addresses[watcher], addresses[presentity], expires_at, orjson.loads(state))
        for key, watcher, presentity, expires_at, state in rows
    ]


def crossing_from_row(row: Sequence[Any]) -> Crossing:
    """Read a row of `crossings`."""
    sender, recipient, *totals = row
    addresses = Addresses()
    return Crossing(addresses[sender], addresses[recipient], *totals)
