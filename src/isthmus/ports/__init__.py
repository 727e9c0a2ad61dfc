"""What the services need from outside, as protocols; `net`, `store` and `bus` implement them, tests use memory.

Two clocks: `monotonic` for every deadline (a jump of the wall clock must not expire a registration early or late)
and `wall` for what is shown or kept over a restart.
"""

from __future__ import annotations

from isthmus.ports.bus import Bus
from isthmus.ports.media import MediaQuality, MediaRelay, RelaySession
from isthmus.ports.records import (
    Appended,
    AuditRecord,
    Binding,
    CallRecord,
    Crossing,
    DomainRule,
    Journal,
    JournalEntry,
    PolicySetting,
    Publication,
    SubscriptionRecord,
)
from isthmus.ports.sip import (
    CallSipEndpoint,
    Flow,
    FlowClosedSink,
    IncomingRequest,
    InviteSink,
    LeanSipEndpoint,
    NextHop,
    RequestSink,
    SentInvite,
    SipEndpoint,
)
from isthmus.ports.store import Store
from isthmus.ports.time import Clock, TimerHandle
from isthmus.ports.xmpp import IqRefusal, JingleSink, Photo, Profile, Profiles, StanzaSink, XmppLink

__all__ = [
    "Appended",
    "AuditRecord",
    "Binding",
    "Bus",
    "CallRecord",
    "CallSipEndpoint",
    "Clock",
    "Crossing",
    "DomainRule",
    "Flow",
    "FlowClosedSink",
    "IncomingRequest",
    "InviteSink",
    "IqRefusal",
    "JingleSink",
    "Journal",
    "JournalEntry",
    "LeanSipEndpoint",
    "MediaQuality",
    "MediaRelay",
    "NextHop",
    "Photo",
    "PolicySetting",
    "Profile",
    "Profiles",
    "Publication",
    "RelaySession",
    "RequestSink",
    "SentInvite",
    "SipEndpoint",
    "StanzaSink",
    "Store",
    "SubscriptionRecord",
    "TimerHandle",
    "XmppLink",
]
