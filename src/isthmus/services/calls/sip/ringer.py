"""Whom to ring in SIP: one leg for each device that is registered, or for the neighbour of a routed domain."""

from __future__ import annotations

from collections.abc import Callable

from isthmus.model import Address, MediaForm, Realm
from isthmus.services.calls.ringing import Invitation, Ring
from isthmus.services.calls.sip.calls import SipCalls
from isthmus.services.calls.sip.forms import forms_of
from isthmus.services.calls.sip.leg_callee import SipCalleeLeg
from isthmus.services.delivery import Target
from isthmus.services.directory import Directory
from isthmus.sip.routing import split_max_breadth


class SipRinger:
    """Finds the SIP devices of business users (`ringing.Ringer`).

    Args:
        name_of: display name of a caller, "" when none is known; it stands in From.
    """

    def __init__(self, calls: SipCalls, directory: Directory, name_of: Callable[[Address], str]) -> None:
        self._calls = calls
        self._directory = directory
        self._name_of = name_of

    async def rings(self, invitation: Invitation) -> list[Ring]:
        """Return `devices` (`ringing.Ringer`); who is registered is known at once."""
        return self.devices(invitation)

    def devices(self, invitation: Invitation) -> list[Ring]:
        """Return the devices of the callee; of one that was named only that one (RFC 5627 section 5.1)."""
        targets = self._calls.delivery.targets(invitation.callee, invitation.callee_device)
        if invitation.callee_device:
            # A message for a device that is gone is for the person; a call to it is not (480).
            named = [target for target in targets if target.key == invitation.callee_device]
            is_routed = self._directory.realm_of(invitation.callee.domain) is Realm.BUSINESS_ROUTED
            targets = targets if is_routed else tuple(named)
        targets = targets[: max(invitation.breadth, 0)]
        if not targets:
            return []
        shares = split_max_breadth(invitation.breadth, len(targets))
        return [self._ring(target, invitation, share) for target, share in zip(targets, shares, strict=True)]

    def _ring(self, target: Target, invitation: Invitation, breadth: int) -> Ring:
        def make(form: MediaForm) -> SipCalleeLeg:
            return SipCalleeLeg(
                self._calls,
                target,
                party=invitation.callee,
                peer=invitation.caller,
                form=form,
                peer_name=self._name_of(invitation.caller),
                hops=invitation.hops + 1,
                breadth=breadth,
                max_forwards=invitation.max_forwards,
                is_hosted=self._directory.realm_of(invitation.callee.domain) is Realm.BUSINESS_HOSTED,
            )

        return Ring(make, forms_of(target))
