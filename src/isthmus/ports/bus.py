"""How one address tells another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from isthmus.model import Address


class Bus(Protocol):
    """Carries an event to the owner of an address. In one process that is a function call, in order per address."""

    def register(self, event_type: type, receiver: Callable[[Address, Any], Awaitable[None] | None]) -> None:
        """Let `receiver(address, event)` take events of this type for addresses we own; receivers run in the order
        they registered."""

    def send(self, address: Address, event: object) -> None:
        """Send; events to one address arrive in the order they were sent."""
