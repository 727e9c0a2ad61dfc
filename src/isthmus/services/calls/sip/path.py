"""Where the requests within a call's dialog go: by route set, the flow that works, or the device's new registration."""

from __future__ import annotations

from isthmus.model import Address
from isthmus.ports import Flow, NextHop
from isthmus.services.calls.sip.calls import SipCalls
from isthmus.services.registrar_contacts import is_dialable
from isthmus.sip.dialog import Dialog
from isthmus.sip.uri import SipUri


class DialogPath:
    """The way to the other end of one dialog.

    Attributes:
        flow: what the device was last heard on (or was sent to), None for a neighbour we only know by name.
        device: its key among the targets of `party`, "" when unknown.
    """

    __slots__ = ("_calls", "_is_hosted", "_names", "_registered", "device", "flow", "party")

    def __init__(
        self,
        calls: SipCalls,
        party: Address,
        *,
        flow: Flow | None,
        device: str = "",
        is_hosted: bool,
        tls_names: tuple[str, ...] = (),
    ) -> None:
        self._calls = calls
        self.party = party
        self.flow = flow
        self.device = device
        self._is_hosted = is_hosted
        self._names = tls_names
        self._registered = self._registered_flow()

    @property
    def transport(self) -> str:
        """Transport that our Contact should name."""
        return self.flow.transport if self.flow is not None else "udp"

    def heard_on(self, flow: Flow) -> None:
        """A request of this dialog came on a flow: the answer to a change of network (RFC 5626 section 5.3)."""
        self.flow = flow

    def next_hop(self, dialog: Dialog) -> NextHop | None:
        """Return where a request goes; None: by its Route or Request-URI."""
        if dialog.has_routes:
            return self._by_name()
        target = dialog.remote_target
        self._follow_registration()
        flow = self.flow
        if flow is None:
            return self._by_name()
        can_dial = isinstance(target, SipUri) and is_dialable(target, flow)
        if self._calls.endpoint.is_flow_alive(flow):
            # A phone is reached as it reached us, through its NAT; a neighbour where it wants to be reached.
            return NextHop(flow=flow) if self._is_hosted or not can_dial else self._by_name()
        way = self._calls.present_way(self.party, self.device) if self.device else None
        if way is not None:
            return way.next_hop
        return self._by_name() if can_dial else NextHop(flow=flow)

    def _follow_registration(self) -> None:
        """A device that has registered from somewhere else since is there now, also when it said nothing yet."""
        registered = self._registered_flow()
        if registered is not None and registered != self._registered:
            self._registered = self.flow = registered

    def _registered_flow(self) -> Flow | None:
        way = self._calls.present_way(self.party, self.device) if self._is_hosted and self.device else None
        return way.next_hop.flow if way is not None and way.next_hop is not None else None

    def _by_name(self) -> NextHop | None:
        """By Route or Contact; over TLS who is there may prove the neighbour's names instead of that address."""
        names = self._names or (self.flow.peer_names if self.flow is not None else ())
        return NextHop(tls_names=names) if names else None
