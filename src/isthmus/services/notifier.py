"""SUBSCRIBE and NOTIFY, the notifier's side: dialogs, expiry, throttle and order, for any event package (RFC 6665).

What an event means is the package's affair (`services.presence_package`, `services.watcher_information`,
`services.resource_lists`); this service owns the dialogs. They are soft state, yet they are written down behind
(`Store.note_subscription`), so that a restart does not leave phones without presence for an hour.
"""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.config import SipSettings
from isthmus.errors import PeerError, SipParseError, TransportError
from isthmus.interworking.addresses import address_from_sip_uri
from isthmus.metrics import Metrics
from isthmus.model import Address
from isthmus.ports import Clock, Flow, IncomingRequest, LeanSipEndpoint, NextHop, Store, SubscriptionRecord
from isthmus.services.authentication import Identity
from isthmus.services.deadlines import Deadlines
from isthmus.services.event_package import EventPackage, is_acceptable
from isthmus.services.watch import Admission, Watch
from isthmus.services.watch_table import WatchTable
from isthmus.sip.dialog import Dialog
from isthmus.sip.message import SipResponse
from isthmus.sip.subscription import NotifyEffect, notify_effect, retry_after
from isthmus.sip.uri import SipUri, escape_user
from isthmus.trace import Trace

# RFC 3856 section 6.10: at most one notification round per presentity in five seconds; the last state always goes out.
THROTTLE_SECONDS = 5.0
# One person's phones; more dialogs of the same watcher for the same thing come from a client that lost count.
MAXIMUM_SAME_WATCHES = 10
# Read at a time: a hundred thousand records at once would take more memory than the subscriptions themselves.
RECORDS_IN_A_PIECE = 1_000
# Subscriptions last a minute at least: nobody minds a second.
EXPIRY_WIDTH_SECONDS = 1.0
# NOTIFYs that wait for the throttle and would leave this close to each other leave together.
THROTTLE_WIDTH_SECONDS = 0.05
# A peer's Retry-After beyond this would outlast most subscriptions.
LONGEST_RETRY_AFTER_SECONDS = 3_600.0


class Notifier:
    """Owns all notifier-side subscriptions."""

    def __init__(
        self,
        endpoint: LeanSipEndpoint,
        store: Store,
        clock: Clock,
        trace: Trace,
        settings: SipSettings,
        *,
        maximum_per_watcher: int = 1_000,
        throttle_seconds: float = THROTTLE_SECONDS,
        metrics: Metrics | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._store = store
        self._clock = clock
        self._trace = trace
        self._settings = settings
        self._maximum_per_watcher = maximum_per_watcher
        self._throttle_seconds = throttle_seconds
        self._metrics = metrics or Metrics()
        self._packages: dict[str, EventPackage] = {}
        self._watches = WatchTable()
        self._expiries: Deadlines[Watch] = Deadlines(clock, self._expired, width_seconds=EXPIRY_WIDTH_SECONDS)
        self._throttles: Deadlines[Watch] = Deadlines(clock, self._throttle_over, width_seconds=THROTTLE_WIDTH_SECONDS)

    def register(self, package: EventPackage) -> None:
        """Serve an event package."""
        self._packages[package.name] = package

    async def load(self) -> None:
        """Take over subscriptions from before a restart; nothing is sent until something changes. Raises StoreError."""
        flows: dict[Flow, Flow] = {}
        after = ""
        while True:
            records = await self._store.subscriptions(after=after, limit=RECORDS_IN_A_PIECE)
            for record in records:
                self._restore(record, flows)
            if len(records) < RECORDS_IN_A_PIECE:
                return
            after = records[-1].key

    def _restore(self, record: SubscriptionRecord, flows: dict[Flow, Flow]) -> None:
        now_wall = self._clock.wall()
        watch = Watch.from_record(record, self._clock.monotonic() + record.expires_at - now_wall, flows)
        if watch is None or watch.package not in self._packages:
            self._store.note_subscription_gone(record.key)
            return
        watch.continue_numbers(now_wall)
        self._keep(watch)
        self._packages[watch.package].restored(watch)

    # --- questions ---

    def watches(self, package: str, resource: Address) -> list[Watch]:
        """Live subscriptions of one package to one resource."""
        return self._watches.to(package, resource)

    def watches_of(self, watcher: Address) -> list[Watch]:
        """Live subscriptions of one watcher, all packages."""
        return self._watches.of(watcher)

    def has_watch(self, package: str, watcher: Address, resource: Address) -> bool:
        """True when `watcher` has at least one live subscription to `resource`."""
        return self._watches.has(package, watcher, resource)

    def __iter__(self) -> Iterator[Watch]:
        return iter(self._watches)

    def __len__(self) -> int:
        return len(self._watches)

    # --- SUBSCRIBE ---

    def receive(self, incoming: IncomingRequest, identity: Identity) -> None:
        """Answer one authenticated SUBSCRIBE (RFC 6665 section 4.2)."""
        if incoming.request.to_address.tag:
            self._receive_in_dialog(incoming, identity)
        else:
            self._receive_initial(incoming, identity)

    def _receive_initial(self, incoming: IncomingRequest, identity: Identity) -> None:
        request = incoming.request
        package = self._packages.get(request.event)
        if package is None:
            self._refuse_event(incoming)
            return
        if not self._pass_accept(incoming, package):
            return
        expires = self._expires(incoming)
        if expires is None:
            return
        if not isinstance(request.uri, SipUri):
            incoming.respond(416)
            return
        try:
            watcher, resource = identity.address, address_from_sip_uri(request.uri)[0]
        except PeerError as error:
            incoming.respond(error.status, str(error))
            return
        if expires and self._watches.count_of(watcher) >= self._maximum_per_watcher:
            self._refuse(incoming, watcher, resource, Admission.refuse(403, "too many subscriptions", "limit.watches"))
            return
        admission = package.admit(watcher, resource, request)
        if not admission.is_admitted:
            self._refuse(incoming, watcher, resource, admission)
            return
        self._begin(incoming, package, watcher, resource, admission, expires)

    def _begin(
        self,
        incoming: IncomingRequest,
        package: EventPackage,
        watcher: Address,
        resource: Address,
        admission: Admission,
        expires: int,
    ) -> None:
        request = incoming.request
        tag = self._endpoint.new_tag()
        contact = self._contact(resource, incoming)
        try:
            dialog = Dialog.as_server(request, local_tag=tag, local_contact=contact)
        except SipParseError as error:
            incoming.respond(error.status, str(error))
            return
        watch = Watch(
            key=f"{dialog.call_id};{tag}",
            package=package.name,
            event_id=request.event_id,
            watcher=watcher,
            resource=resource,
            dialog=dialog,
            flow=incoming.flow,
            expires_at=self._clock.monotonic() + expires,
            is_pending=admission.is_pending,
            is_list=admission.is_list,
            follows_contacts=admission.follows_contacts,
            members=admission.members,
        )
        incoming.respond(200, headers=self._headers(watch, expires), to_tag=tag)
        if expires == 0:
            # A poll (RFC 6665 section 4.4.3): one NOTIFY, no subscription, no authorisation prompt.
            watch.terminated = "timeout"
            package.polled(watch)
            self._send(watch)
            return
        self._evict_oldest(watch)
        self._keep(watch)
        package.began(watch)
        self._write_down(watch)
        self.notify(watch, is_urgent=True)

    def _evict_oldest(self, watch: Watch) -> None:
        same = [
            other
            for other in self.watches(watch.package, watch.resource)
            if other.watcher == watch.watcher and not other.terminated
        ]
        if len(same) >= MAXIMUM_SAME_WATCHES:
            # Not "deactivated" or "timeout": the phone would come back at once and evict the next of its dialogs.
            self.terminate(min(same, key=lambda other: other.expires_at), "giveup")

    def _receive_in_dialog(self, incoming: IncomingRequest, identity: Identity) -> None:
        request = incoming.request
        watch = self._watches.get(f"{request.call_id};{request.to_address.tag}")
        if (
            watch is None
            or watch.terminated
            or watch.dialog.remote_tag != request.from_address.tag
            or watch.watcher != identity.address
        ):
            incoming.respond(481)
            return
        if (request.event, request.event_id) != (watch.package, watch.event_id):
            # Another subscription in this dialog: it must begin one of its own (RFC 6665 section 4.5.2).
            self._refuse_event(incoming, 481 if request.event in self._packages else 489)
            return
        package = self._packages[watch.package]
        try:
            watch.dialog.receive_request(request)
            expires = self._expires(incoming) if self._pass_accept(incoming, package) else None
            if expires is None:
                return
            if expires:
                package.refreshed(watch, request)
        except PeerError as error:
            incoming.respond(error.status, str(error))
            return
        watch.flow = incoming.flow
        watch.dialog.local_contact = self._contact(watch.resource, incoming)
        incoming.respond(200, headers=self._headers(watch, expires))
        if expires == 0:
            self.terminate(watch, "timeout")
            return
        self._expiries.discard(watch, watch.expires_at)
        watch.expires_at = self._clock.monotonic() + expires
        self._expiries.add(watch, watch.expires_at)
        self._write_down(watch)
        watch.is_full = True
        self.notify(watch, is_urgent=True)

    # --- parts of answers ---

    def _refuse_event(self, incoming: IncomingRequest, status: int = 489) -> None:
        headers = (("Allow-Events", ", ".join(sorted(self._packages))),) if status == 489 else ()
        incoming.respond(status, headers=headers)

    def _pass_accept(self, incoming: IncomingRequest, package: EventPackage) -> bool:
        if is_acceptable(incoming.request, package.body_types):
            return True
        incoming.respond(406, headers=(("Accept", ", ".join(package.body_types)),))
        return False

    def _contact(self, resource: Address, incoming: IncomingRequest) -> SipUri:
        return self._endpoint.contact_uri(escape_user(resource.local), incoming.flow.transport)

    def _headers(self, watch: Watch, expires: int) -> list[tuple[str, str]]:
        headers = [("Expires", str(expires)), ("Contact", watch.dialog.contact_header)]
        if watch.is_list:
            headers.append(("Require", "eventlist"))  # RFC 4662 section 4.3: every 2xx about a list
        return headers

    def _expires(self, incoming: IncomingRequest) -> int | None:
        wanted, settings = incoming.request.expires, self._settings
        if wanted is None:
            return settings.default_expires_seconds
        if 0 < wanted < min(settings.minimum_expires_seconds, 3600):
            incoming.respond(423, headers=(("Min-Expires", str(settings.minimum_expires_seconds)),))
            return None
        return min(wanted, settings.maximum_expires_seconds)

    def _refuse(self, incoming: IncomingRequest, watcher: Address, resource: Address, admission: Admission) -> None:
        self._trace.decision(
            f"subscription of {watcher} to {resource} refused: {admission.text}",
            people=(str(watcher), str(resource)),
            rule=admission.rule,
            mark="!",
        )
        incoming.respond(admission.status, admission.text, headers=admission.headers)

    # --- NOTIFY ---

    def notify(self, watch: Watch, *, is_urgent: bool = False) -> None:
        """The state for this watch has changed: send it now, or as soon as throttle and order allow."""
        if watch not in self._watches:
            return
        watch.is_dirty = True
        if watch.is_in_flight:
            watch.is_urgent = watch.is_urgent or is_urgent
            return
        if is_urgent or watch.next_notify_at - self._clock.monotonic() <= THROTTLE_WIDTH_SECONDS:
            self._send(watch)
        elif not watch.throttled_until:
            watch.throttled_until = watch.next_notify_at
            self._throttles.add(watch, watch.throttled_until)

    def activate(self, watch: Watch) -> None:
        """The presentity agreed: the subscription is active from now on."""
        watch.is_pending = False
        self._write_down(watch)
        self.notify(watch, is_urgent=True)

    def terminate(self, watch: Watch, reason: str) -> None:
        """End a subscription with a final NOTIFY (RFC 6665 section 4.1.3 reason codes)."""
        if watch not in self._watches or watch.terminated:
            return
        watch.terminated = reason
        if not watch.is_in_flight:
            self._send(watch)

    def _throttle_over(self, watch: Watch) -> None:
        watch.throttled_until = 0.0
        if watch.is_dirty:
            self.notify(watch)  # something urgent may have gone out meanwhile, which began another round

    def _send(self, watch: Watch) -> None:
        now = self._clock.monotonic()
        watch.is_dirty = watch.is_urgent = False
        watch.is_in_flight = True
        watch.next_notify_at = now + self._throttle_seconds
        package = self._packages[watch.package]
        content = package.content(watch)
        headers = [("Event", watch.event_header), ("Subscription-State", watch.state_header(now))]
        headers.append(("Contact", watch.dialog.contact_header))
        if watch.is_list:
            headers.append(("Require", "eventlist"))
        body, content_type = (content[1], content[0]) if content else (b"", "")
        request = watch.dialog.make_request("NOTIFY", headers=headers, body=body, content_type=content_type)
        if watch.terminated:
            self._drop(watch)
        self._metrics.notifications.add(watch.package)
        self._endpoint.request_nowait(request, self._next_hop(watch), lambda outcome: self._answered(watch, outcome))

    def _next_hop(self, watch: Watch) -> NextHop | None:
        """The way the SUBSCRIBE came, which works through NAT; the route set or Contact when that is gone.

        Over TLS whoever is there may be the one who subscribed, besides the host that the route names.
        """
        flow = watch.flow
        if watch.dialog.has_routes or not self._endpoint.is_flow_alive(flow):
            return NextHop(tls_names=flow.peer_names) if flow.peer_names else None
        return NextHop(flow=flow)

    def _answered(self, watch: Watch, outcome: SipResponse | TransportError) -> None:
        watch.is_in_flight = False
        if watch not in self._watches:
            return
        status = outcome.status if isinstance(outcome, SipResponse) else 408
        if notify_effect(status) is NotifyEffect.REMOVE:
            self._trace.decision(
                f"subscription of {watch.watcher} to {watch.resource} ended: NOTIFY was answered {status}",
                people=(str(watch.watcher), str(watch.resource)),
                rule="notify.failed",
                call_id=watch.dialog.call_id,
            )
            self._drop(watch)
        elif watch.terminated:
            self._send(watch)
        else:
            if status >= 300:
                self._not_delivered(watch, outcome)
            if watch.is_dirty:
                self.notify(watch, is_urgent=watch.is_urgent)

    def _not_delivered(self, watch: Watch, outcome: SipResponse | TransportError) -> None:
        """The subscription survives; when the peer says when it listens again, it is told the state then."""
        watch.is_full = True  # what it missed was perhaps not all that changes next
        wait = retry_after(outcome) if isinstance(outcome, SipResponse) else None
        if wait is not None:
            watch.is_dirty, watch.is_urgent = True, False
            watch.next_notify_at = self._clock.monotonic() + min(wait, LONGEST_RETRY_AFTER_SECONDS)

    # --- bookkeeping ---

    def _keep(self, watch: Watch) -> None:
        self._watches.add(watch)
        self._expiries.add(watch, watch.expires_at)

    def _expired(self, watch: Watch) -> None:
        self.terminate(watch, "timeout")

    def _drop(self, watch: Watch) -> None:
        if not self._watches.remove(watch):
            return
        self._expiries.discard(watch, watch.expires_at)
        self._throttles.discard(watch, watch.throttled_until)
        self._store.note_subscription_gone(watch.key)
        self._packages[watch.package].ended(watch)

    def _write_down(self, watch: Watch) -> None:
        wall = self._clock.wall() + watch.expires_at - self._clock.monotonic()
        self._store.note_subscription(watch.to_record(wall))
