"""Photos of hosted users: kept in the store, named by their hash in memory, set by the administrator."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Protocol

from isthmus.errors import OperationError, UnknownSubjectError
from isthmus.model import Address, User
from isthmus.ports import AuditRecord, Bus, Clock, Photo, Store
from isthmus.services.accounts import parse_address
from isthmus.services.events import PhotoChanged, UserRemoved
from isthmus.services.operations import Function, Plain
from isthmus.xmpp.vcard import MAXIMUM_PHOTO_OCTETS, photo_hash, photo_type, photo_update


class Users(Protocol):
    """The part of `services.directory` that knows accounts."""

    def user(self, address: Address) -> User | None:
        """The hosted user, disabled or not; None when there is none."""


class Photos:
    """Which photo is whose; contents stay in the store, as hardly anybody is looked at twice.

    Adds the operations `user.photo` and `user.remove_photo` to the table of `services.administration`.
    """

    def __init__(self, users: Users, store: Store, bus: Bus, clock: Clock) -> None:
        self._users = users
        self._store = store
        self._bus = bus
        self._clock = clock
        self._hashes: dict[Address, str] = {}
        bus.register(UserRemoved, self._user_removed)

    async def load(self) -> None:
        """Read which photos there are. Raises StoreError."""
        self._hashes = dict(await self._store.photo_hashes())

    def update(self, user: Address) -> str:
        """Return what the presence of one of our people says of the photo (XEP-0153), "" of whom we know none."""
        return photo_update(self._hashes.get(user, "")) if self._users.user(user) is not None else ""

    async def photo(self, user: Address) -> Photo | None:
        """Return somebody's photo. Raises StoreError."""
        return await self._store.photo(user) if user in self._hashes else None

    # --- what administrators do ---

    @property
    def functions(self) -> Mapping[str, Function]:
        """The operations by name."""
        return {"user.photo": self.set_photo, "user.remove_photo": self.remove_photo}

    async def set_photo(self, address: str, content: str, *, actor: str) -> Plain:
        """Give a user a photo that contacts on XMPP see: PNG or JPEG, as base64."""
        person = self._known(address)
        try:
            image = base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise OperationError(f"the photo is not base64: {error}") from error
        if len(image) > MAXIMUM_PHOTO_OCTETS:
            raise OperationError(f"the photo is larger than {MAXIMUM_PHOTO_OCTETS // 1024} KiB: make it smaller")
        media_type = photo_type(image)
        if not media_type:
            raise OperationError("the photo is neither PNG nor JPEG")
        photo = Photo(image, media_type, photo_hash(image))
        await self._record(actor, "user photo", person, f"{media_type}, {len(image)} octets")
        await self._store.save_photo(person, photo)
        self._hashes[person] = photo.sha1
        self._bus.send(person, PhotoChanged(person))
        return {"address": str(person), "media_type": media_type, "octets": len(image), "sha1": photo.sha1}

    async def remove_photo(self, address: str, *, actor: str) -> Plain:
        """Take a user's photo away; contacts see none any more."""
        person = self._known(address)
        await self._record(actor, "user remove photo", person, "")
        await self._store.delete_photo(person)
        self._hashes.pop(person, None)
        self._bus.send(person, PhotoChanged(person))
        return {"address": str(person), "is_removed": True}

    # --- inside ---

    def _known(self, text: str) -> Address:
        person = parse_address(text)
        if self._users.user(person) is None:
            raise UnknownSubjectError(f"there is no user {person}; `isthmus user list` shows all")
        return person

    def _user_removed(self, address: Address, _: UserRemoved) -> None:
        """A disabled user keeps the photo for when it is enabled again."""
        if self._users.user(address) is None:
            self._hashes.pop(address, None)

    async def _record(self, actor: str, action: str, person: Address, detail: str) -> None:
        await self._store.save_audit(AuditRecord(self._clock.wall(), actor, action, str(person), detail))
