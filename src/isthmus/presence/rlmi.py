"""Resource lists: one subscription for many people (RFC 4662), with the list in the SUBSCRIBE (RFC 5367, RFC 4826)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.errors import PayloadError
from isthmus.model import Address
from isthmus.presence.entities import address_from_entity, address_to_entity
from isthmus.sip.mime import Part, build_multipart
from isthmus.xml_text import escape_attribute, escape_text, parse_xml

RLMI_TYPE = "application/rlmi+xml"
RLMI_NAMESPACE = "urn:ietf:params:xml:ns:rlmi"
RESOURCE_LISTS_TYPE = "application/resource-lists+xml"
RESOURCE_LISTS_NAMESPACE = "urn:ietf:params:xml:ns:resource-lists"

# One NOTIFY carries one part per contact; sip.limits allows 256 parts and one is the list itself.
MAXIMUM_LIST_ENTRIES = 250


@dataclass(frozen=True, slots=True)
class ListedResource:
    """One person of a list as the watcher sees them now.

    Attributes:
        address: the person.
        state: of the back-end subscription: "active", "pending" or "terminated".
        reason: why terminated, in the words of RFC 6665 section 4.1.3.
        body: presence document; empty when there is none to show.
        content_type: of `body`.
        name: display name.
    """

    address: Address
    state: str
    reason: str = ""
    body: bytes = b""
    content_type: str = "application/pidf+xml"
    name: str = ""


def write_rlmi(list_uri: str, resources: Iterable[ListedResource], *, version: int, is_full: bool) -> tuple[str, bytes]:
    """Return (Content-Type, body) of a list notification: multipart/related, the RLMI document first.

    Args:
        list_uri: URI of the list, as subscribed.
        resources: all people for full state, the changed ones otherwise.
        version: 0 in the first notification of a subscription, one more in each that follows.
        is_full: must be True in the first notification and after a refresh (RFC 4662 section 4.5).
    """
    rows: list[str] = []
    parts: list[Part] = []
    for number, resource in enumerate(resources):
        # Content-IDs only have to differ within what one watcher keeps: one list, its versions, its people.
        content_id = f"{number}.{version}@list.invalid" if resource.body else ""
        rows.append(_resource_element(resource, content_id))
        if content_id:
            parts.append(_part(resource.content_type, content_id, resource.body))
    full = "true" if is_full else "false"
    document = (
        f"<?xml version='1.0' encoding='UTF-8'?>\r\n<list xmlns='{RLMI_NAMESPACE}' uri='{escape_attribute(list_uri)}'"
        f" version='{version}' fullState='{full}'>{''.join(rows)}</list>"
    ).encode()
    root_id = f"list.{version}@list.invalid"
    root = _part(f"{RLMI_TYPE};charset=UTF-8", root_id, document)
    return build_multipart(
        [root, *parts], subtype="related", parameters=(("type", RLMI_TYPE), ("start", f"<{root_id}>"))
    )


def _resource_element(resource: ListedResource, content_id: str) -> str:
    name = f"<name>{escape_text(resource.name)}</name>" if resource.name else ""
    reason = f" reason='{escape_attribute(resource.reason)}'" if resource.reason else ""
    cid = f" cid='{escape_attribute(content_id)}'" if content_id else ""
    uri = escape_attribute(address_to_entity(resource.address))
    # One back-end subscription each, so one instance; its id only has to be unique within the resource.
    instance = f"<instance id='1' state='{escape_attribute(resource.state)}'{reason}{cid}/>"
    return f"<resource uri='{uri}'>{name}{instance}</resource>"


def _part(content_type: str, content_id: str, body: bytes) -> Part:
    return Part.of(content_type, body, content_transfer_encoding="binary", content_id=f"<{content_id}>")


def parse_resource_lists(body: bytes) -> tuple[Address, ...]:
    """Return the people of a `resource-lists` document, nested lists included, each once, in order.

    References to other documents (`external`, `entry-ref`) are not followed: they would make us fetch for a stranger.

    Raises:
        PayloadError: not such a document, or more than MAXIMUM_LIST_ENTRIES people (413).
    """
    root = parse_xml(body)
    if root.tag != f"{{{RESOURCE_LISTS_NAMESPACE}}}resource-lists":
        raise PayloadError("the body is not a resource-lists document")
    people: dict[Address, None] = {}
    for entry in root.iter(f"{{{RESOURCE_LISTS_NAMESPACE}}}entry"):
        try:
            people[address_from_entity(entry.get("uri", ""))] = None
        except PayloadError:
            continue  # one bad entry must not hide everybody else (RFC 4826 leaves it to the server)
        if len(people) > MAXIMUM_LIST_ENTRIES:
            raise PayloadError(
                f"a list may hold {MAXIMUM_LIST_ENTRIES} people", status=413, condition="policy-violation"
            )
    return tuple(people)


def write_resource_lists(people: Iterable[Address]) -> bytes:
    """Return a `resource-lists` document with one flat list (RFC 4826 section 3.3)."""
    entries = "".join(f"<entry uri='{escape_attribute(address_to_entity(person))}'/>" for person in people)
    return (
        f"<?xml version='1.0' encoding='UTF-8'?>\r\n<resource-lists xmlns='{RESOURCE_LISTS_NAMESPACE}'>"
        f"<list>{entries}</list></resource-lists>"
    ).encode()
