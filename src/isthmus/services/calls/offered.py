"""What calls to one of our people may carry, as their clients are told (XEP-0030): what policy can allow at all."""

from __future__ import annotations

from typing import Protocol

from isthmus.config import CallSettings
from isthmus.model import Address, Modality
from isthmus.policy import Rules


class Policing(Protocol):
    """The part of `services.policing` that is asked."""

    @property
    def rules(self) -> Rules:
        """The rules now."""


class OfferedCalls:
    """Answers for every one of our people; who calls is not known yet, so the verdict of a call may be stricter."""

    def __init__(self, settings: CallSettings, policing: Policing) -> None:
        self._is_enabled = settings.enabled
        self._policing = policing

    def to(self, user: Address) -> frozenset[Modality]:
        """Return AUDIO, AUDIO and VIDEO, or nothing; video without audio is no call that clients could place."""
        values = self._policing.rules.values
        if not self._is_enabled or values.organisation("connectivity").value == "off":
            return frozenset()
        if values.effective(user, Modality.AUDIO.value).value == "off":
            return frozenset()
        if values.effective(user, Modality.VIDEO.value).value == "off":
            return frozenset({Modality.AUDIO})
        return frozenset({Modality.AUDIO, Modality.VIDEO})
