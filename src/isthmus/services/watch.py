"""One notifier-side subscription: who watches what, in which dialog, and what is on its way (RFC 6665)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from isthmus.errors import IsthmusError
from isthmus.model import Address
from isthmus.ports import Flow, SubscriptionRecord
from isthmus.sip.dialog import Dialog
from isthmus.sip.subscription import subscription_state_header

# CSeq and document version after a restart go on at two for each second since 2020, more than a dialog uses: so they
# rise, although nobody wrote down what was sent last (gaps are legal, and 31 bits last until 2054). The gap is for a
# clock that was set back.
NUMBERS_PER_SECOND = 2
NUMBERS_SINCE = 1_577_836_800
CSEQ_GAP_AFTER_RESTART = 1_000


@dataclass(frozen=True, slots=True)
class Admission:
    """An event package's answer to a new subscription.

    Attributes:
        status: 200, or the status of the refusal.
        is_pending: admitted, but the presentity has not agreed yet.
        is_list: the resource is a list (RFC 4662); `members` are on it.
        follows_contacts: the list is the watcher's contact list and changes with it.
        text, rule: why it was refused; `headers` go with the refusal.
    """

    status: int = 200
    is_pending: bool = False
    is_list: bool = False
    members: tuple[Address, ...] = ()
    follows_contacts: bool = False
    text: str = ""
    rule: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def is_admitted(self) -> bool:
        """True when the subscription begins."""
        return self.status < 300

    @classmethod
    def refuse(cls, status: int, text: str, rule: str, headers: tuple[tuple[str, str], ...] = ()) -> Admission:
        """A refusal with its reason."""
        return cls(status=status, text=text, rule=rule, headers=headers)


@dataclass(slots=True, eq=False)
class Watch:
    """State of one subscription dialog.

    Attributes:
        key: Call-ID and our tag.
        is_full: the next notification of a list or of watcher information must carry the whole state.
        version: counter of documents that count (winfo, RLMI).
        terminated: reason of the final NOTIFY; empty while the subscription lives.
        next_notify_at, expires_at: monotonic deadlines in seconds.
        throttled_until: when the NOTIFY that waits will go; 0 when none waits.
    """

    key: str
    package: str
    event_id: str
    watcher: Address
    resource: Address
    dialog: Dialog
    flow: Flow
    expires_at: float
    is_pending: bool = False
    is_list: bool = False
    members: tuple[Address, ...] = ()
    follows_contacts: bool = False
    is_full: bool = True
    version: int = -1
    terminated: str = ""
    is_in_flight: bool = False
    is_dirty: bool = False
    is_urgent: bool = False
    next_notify_at: float = 0.0
    throttled_until: float = 0.0
    _changed: set[Address] | None = None  # lists only

    @property
    def event_header(self) -> str:
        """Value of Event, with the id the subscriber chose."""
        return f"{self.package};id={self.event_id}" if self.event_id else self.package

    def note_change(self, member: Address) -> None:
        """Something is new about a member of the list."""
        if self._changed is None:
            self._changed = set()
        self._changed.add(member)

    def take_changes(self) -> set[Address]:
        """The members that something is new about since this was last asked."""
        changed, self._changed = self._changed, None
        return changed if changed is not None else set()

    def state_header(self, now: float) -> str:
        """Value of Subscription-State."""
        if self.terminated:
            return subscription_state_header("terminated", reason=self.terminated)
        expires = max(0, round(self.expires_at - now))
        return subscription_state_header("pending" if self.is_pending else "active", expires=expires)

    def continue_numbers(self, wall: float) -> None:
        """After a restart: go on with numbers that were certainly not used before it."""
        self.version = max(0, int((wall - NUMBERS_SINCE) * NUMBERS_PER_SECOND))
        if self.dialog.local_cseq < self.version:
            self.dialog.local_cseq = self.version
        else:
            self.dialog.local_cseq += CSEQ_GAP_AFTER_RESTART

    def to_record(self, expires_at_wall: float) -> SubscriptionRecord:
        """A form that survives a restart."""
        flow = self.flow
        state: dict[str, Any] = {
            "package": self.package,
            "event_id": self.event_id,
            "dialog": self.dialog.to_record(),
            "flow": [flow.transport, flow.remote_host, flow.remote_port, flow.local_host, flow.local_port],
            "is_stream": flow.is_stream,
            "is_pending": self.is_pending,
            "is_list": self.is_list,
            "members": [[member.local, member.domain] for member in self.members],
            "follows_contacts": self.follows_contacts,
            **({"peer_names": list(flow.peer_names)} if flow.peer_names else {}),
        }
        return SubscriptionRecord(self.key, self.watcher, self.resource, expires_at_wall, state)

    @classmethod
    def from_record(cls, record: SubscriptionRecord, expires_at: float, flows: dict[Flow, Flow]) -> Watch | None:
        """Read `to_record` back; None when another version wrote it. Stream connections have not survived.

        Args:
            flows: those of other subscriptions, to share what is equal.
        """
        state = record.state
        try:
            transport, remote_host, remote_port, local_host, local_port = state["flow"]
            # Connection -1 never existed: the endpoint says that the flow is dead and the Contact is used instead.
            connection, names = -1 if state["is_stream"] else 0, tuple(map(str, state.get("peer_names", ())))
            flow = Flow(transport, remote_host, remote_port, local_host, local_port, connection, names)
            return cls(
                key=record.key,
                package=sys.intern(state["package"]),
                event_id=state["event_id"],
                watcher=record.watcher,
                resource=record.presentity,
                dialog=Dialog.from_record(state["dialog"]),
                flow=flows.setdefault(flow, flow),
                expires_at=expires_at,
                is_pending=state["is_pending"],
                is_list=state["is_list"],
                members=tuple(Address(local, domain) for local, domain in state["members"]),
                follows_contacts=state.get("follows_contacts", False),
            )
        except (KeyError, TypeError, ValueError, IsthmusError):
            return None
