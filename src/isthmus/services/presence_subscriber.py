"""We watch a routed SIP user on somebody's behalf: the subscriber's machine (RFC 8048 section 5, RFC 6665).

One `Pair` per (watcher, presentity). The authorisation in `services.contacts` is permanent; the subscription here is
soft and replaced as often as needed. A timeout never looks like a refusal: only an explicit "no" ends the
authorisation (edge case 8). What each failure means is `sip.subscription.Aftermath`; what we then do is `_AFTERMATH`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from isthmus.errors import PayloadError, SipParseError, TransportError
from isthmus.interworking.addresses import address_to_sip_uri
from isthmus.interworking.sip_bodies import ACCEPT_ENCODING, UnsupportedBodyError, unpacked_body
from isthmus.model import Address, Authorisation, AuthorisationState, Realm
from isthmus.ports import Bus, Clock, IncomingRequest, LeanSipEndpoint, NextHop
from isthmus.presence.composition import devices_with_person
from isthmus.presence.pidf import PIDF_TYPE, parse_pidf
from isthmus.services.authentication import Identity
from isthmus.services.contacts import Contacts, People
from isthmus.services.delivery import BusinessDelivery, Way
from isthmus.services.events import AuthorisationChanged, WatchAnswered, WatcherAvailability, WatchingChanged
from isthmus.services.pacing import Pacer
from isthmus.services.presence_pairs import Pair, Phase, minimum_expires_of, status_of, transport_of, wait_of
from isthmus.services.remote_presence import RemotePresence
from isthmus.sip.dialog import Dialog
from isthmus.sip.headers import NameAddr
from isthmus.sip.message import SipRequest, SipResponse, build_request
from isthmus.sip.subscription import (
    Aftermath,
    SubscriberUsage,
    SubscriptionState,
    SubscriptionStatus,
    after_subscribe_failed,
    retry_delay,
)
from isthmus.sip.timers import TimerTable
from isthmus.sip.uri import escape_user
from isthmus.trace import Trace

# After a restart thousands of subscriptions begin anew; a neighbour takes this many without queueing.
SUBSCRIBES_PER_SECOND = 100.0
# A subscription that ends sooner was none: a neighbour that ends each at once must not be asked in a loop.
SHORT_LIVED_SECONDS = 60.0
# "Nobody there" is asked again once a day, because people come back.
DEAD_SECONDS = 86_400.0


class PresenceSubscriber:
    """All subscriptions that we hold at the neighbours of routed domains."""

    def __init__(
        self,
        endpoint: LeanSipEndpoint,
        delivery: BusinessDelivery,
        contacts: Contacts,
        remote: RemotePresence,
        people: People,
        bus: Bus,
        clock: Clock,
        trace: Trace,
        *,
        timers: TimerTable | None = None,
        chance: Callable[[], float] = random.random,
        is_watched: Callable[[Address, Address], bool] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._delivery = delivery
        self._contacts = contacts
        self._remote = remote
        self._people = people
        self._bus = bus
        self._clock = clock
        self._trace = trace
        self._timer_n_seconds = 64 * (timers or TimerTable()).t1
        self._chance = chance
        self._is_watched = is_watched
        self._pacer = Pacer(clock, SUBSCRIBES_PER_SECOND)
        self._pairs: dict[tuple[Address, Address], Pair] = {}
        self._by_dialog: dict[tuple[str, str], Pair] = {}
        self._aftermath: dict[Aftermath, Callable[[Pair, int | None], None]] = {
            Aftermath.KEPT: self._kept,
            Aftermath.REPEAT_WITH_MINIMUM: self._repeat,
            Aftermath.RESUBSCRIBE_NOW: self._subscribe_again,
            Aftermath.RETRY_LATER: self._retry_later,
            Aftermath.REFUSED: self._refused,
            Aftermath.NO_SUCH_RESOURCE: self._nobody_there,
            Aftermath.FINISHED: self._finished,
        }
        bus.register(AuthorisationChanged, self._authorisation_changed)
        bus.register(WatcherAvailability, self._watcher_availability)
        bus.register(WatchingChanged, self._watching_changed)

    def load(self) -> None:
        """Subscribe again after a restart, at a pace; nobody is told anything until a NOTIFY came."""
        wanted: list[Pair] = []
        for row in self._contacts.all():
            if self._is_ours(row.presentity):
                pair = self._pair(row.watcher, row.presentity)
                if self._is_unseen(row):
                    pair.phase = Phase.IDLE
                else:
                    wanted.append(pair)
        self._pacer.add(partial(self._subscribe_now, pair, None) for pair in wanted)

    def _is_unseen(self, row: Authorisation) -> bool:
        """A colleague whose phone shows nobody; whether an XMPP watcher is there only a probe will tell."""
        if row.state is not AuthorisationState.ACTIVE or self._is_watched is None:
            return False
        is_colleague = self._people.realm_of(row.watcher.domain).is_business
        return is_colleague and not self._is_watched(row.watcher, row.presentity)

    def phase(self, watcher: Address, presentity: Address) -> Phase | None:
        """Where a pair stands, for `isthmus explain`; None when we do not watch."""
        pair = self._pairs.get((watcher, presentity))
        return pair.phase if pair else None

    # --- what starts and ends a pair ---

    def _is_ours(self, presentity: Address) -> bool:
        return self._people.realm_of(presentity.domain) is Realm.BUSINESS_ROUTED

    def _pair(self, watcher: Address, presentity: Address) -> Pair:
        return self._pairs.setdefault((watcher, presentity), Pair(watcher, presentity))

    def _authorisation_changed(self, presentity: Address, event: AuthorisationChanged) -> None:
        if not self._is_ours(presentity):
            return
        pair = self._pairs.get((event.watcher, presentity))
        if event.state is None:
            self._end(event.watcher, presentity)
        elif pair is None:
            self._subscribe_now(self._pair(event.watcher, presentity), None)
        elif event.reason == "repeated" and pair.phase is Phase.DEAD:
            self._subscribe_now(pair, None)  # the watcher acted

    def _watcher_availability(self, presentity: Address, event: WatcherAvailability) -> None:
        """An XMPP watcher without an available resource sees nothing: let the subscription go, keep the consent."""
        pair = self._pairs.get((event.watcher, presentity))
        if pair is None:
            return
        if not event.is_available:
            self._rest(pair)
        elif pair.phase in (Phase.IDLE, Phase.DEAD):  # RETRY keeps to its Retry-After, however often he signs in
            self._subscribe_now(pair, None)

    def _watching_changed(self, presentity: Address, event: WatchingChanged) -> None:
        """The same for a colleague: what counts is whether one of the phones shows the contact."""
        pair = self._pairs.get((event.watcher, presentity))
        if pair is None:
            return
        if not event.is_watching:
            self._rest(pair)
        elif pair.phase in (Phase.DEAD, Phase.IDLE):
            self._subscribe_now(pair, None)

    def _rest(self, pair: Pair) -> None:
        """Nobody looks: end the subscription and what it told; a request that is not answered yet goes on."""
        is_granted = self._contacts.state(pair.watcher, pair.presentity) is AuthorisationState.ACTIVE
        if is_granted and pair.phase in (Phase.SUBSCRIBED, Phase.RETRY):
            self._unsubscribe(pair)
            self._remote.forget(pair.watcher, pair.presentity)
            pair.phase = Phase.IDLE

    def _end(self, watcher: Address, presentity: Address) -> None:
        pair = self._pairs.pop((watcher, presentity), None)
        self._remote.forget(watcher, presentity)
        if pair is not None:
            pair.is_ending = True
            self._unsubscribe(pair)

    # --- SUBSCRIBE out ---

    def _subscribe_now(self, pair: Pair, _: int | None) -> None:
        """A new subscription: fresh Call-ID, fresh tag."""
        if pair.is_ending:
            return
        self._forget_dialog(pair)
        targets = self._delivery.targets(pair.presentity)
        if not targets:
            self._retry_later(pair, None)
            return
        self._cancel_timer(pair)
        pair.phase = Phase.SUBSCRIBED
        pair.began_at = self._clock.monotonic()
        pair.usage = SubscriberUsage()
        tag, call_id = self._endpoint.new_tag(), self._endpoint.new_call_id()
        pair.key = (call_id, tag)
        self._by_dialog[pair.key] = pair

        def build(way: Way) -> SipRequest:
            pair.way = way
            pair.subscribe = build_request(
                "SUBSCRIBE",
                way.uri,
                from_address=NameAddr(address_to_sip_uri(pair.watcher)).with_param("tag", tag),
                to_address=NameAddr(address_to_sip_uri(pair.presentity)),
                call_id=call_id,
                cseq=1,
                headers=self._headers(pair, transport_of(way), pair.lifetime),
            )
            return pair.subscribe

        pair.usage.subscribe_sent(self._clock.monotonic(), self._timer_n_seconds)
        self._arm(pair)
        usage = pair.usage
        self._delivery.send_to(targets[0], build, lambda outcome, _: self._first_answered(pair, usage, outcome))

    def _headers(self, pair: Pair, transport: str, expires: int) -> list[tuple[str, str]]:
        contact = self._endpoint.contact_uri(escape_user(pair.watcher.local), transport)
        return [
            ("Contact", f"<{contact}>"),
            ("Event", "presence"),
            ("Accept", PIDF_TYPE),
            ("Expires", str(expires)),
        ]

    def _first_answered(self, pair: Pair, usage: SubscriberUsage, outcome: SipResponse | TransportError) -> None:
        if pair.usage is not usage or pair.phase is not Phase.SUBSCRIBED:
            return
        now = self._clock.monotonic()
        if isinstance(outcome, SipResponse) and outcome.status < 300:
            usage.subscribe_accepted(outcome.expires or pair.lifetime, now, self._chance())
            self._make_dialog(pair, outcome)
            self._arm(pair)
            return
        self._trace_failure(pair, outcome)
        self._act(pair, after_subscribe_failed(status_of(outcome)), outcome)

    def _make_dialog(self, pair: Pair, response: SipResponse) -> None:
        """The 200 alone can make the dialog; a NOTIFY that overtook it already did (RFC 6665 section 4.4.1)."""
        if pair.dialog is None and pair.subscribe is not None:
            try:
                pair.dialog = Dialog.as_client(pair.subscribe, response)
            except SipParseError:
                return

    def _refresh(self, pair: Pair) -> None:
        if pair.dialog is None or pair.way is None:
            self._subscribe_now(pair, None)
            return
        usage, now = pair.usage, self._clock.monotonic()
        usage.subscribe_sent(now, self._timer_n_seconds)
        headers = self._headers(pair, transport_of(pair.way), pair.lifetime)
        request = pair.dialog.make_request("SUBSCRIBE", headers=headers)
        self._arm(pair)
        self._send_in_dialog(pair, request, lambda outcome: self._refresh_answered(pair, usage, outcome))

    def _refresh_answered(self, pair: Pair, usage: SubscriberUsage, outcome: SipResponse | TransportError) -> None:
        if pair.usage is not usage or pair.phase is not Phase.SUBSCRIBED:
            return
        now = self._clock.monotonic()
        if isinstance(outcome, SipResponse) and outcome.status < 300:
            usage.subscribe_accepted(outcome.expires or pair.lifetime, now, self._chance())
            if pair.dialog is not None:
                pair.dialog.refresh_target(outcome)
            self._arm(pair)
            return
        self._trace_failure(pair, outcome)
        aftermath = usage.refresh_failed(status_of(outcome), now, self._chance(), wait_of(outcome))
        self._act(pair, aftermath, outcome)

    def _unsubscribe(self, pair: Pair) -> None:
        self._cancel_timer(pair)
        if pair.dialog is not None and pair.way is not None and pair.usage.state is not SubscriptionState.TERMINATED:
            headers = self._headers(pair, transport_of(pair.way), 0)
            request = pair.dialog.make_request("SUBSCRIBE", headers=headers)
            self._send_in_dialog(pair, request, lambda _: None)
        self._forget_dialog(pair)
        pair.usage = SubscriberUsage()

    def _send_in_dialog(
        self, pair: Pair, request: SipRequest, done: Callable[[SipResponse | TransportError], None]
    ) -> None:
        assert pair.dialog is not None
        hop = pair.way.next_hop if pair.way is not None else None
        if hop is not None and pair.dialog.has_routes:
            hop = NextHop(tls_names=hop.tls_names) if hop.tls_names else None
        self._endpoint.request_nowait(request, hop, done)

    # --- NOTIFY in ---

    def notify_received(self, incoming: IncomingRequest, identity: Identity) -> None:
        """Answer one authenticated NOTIFY (RFC 6665 section 4.1.3)."""
        request = incoming.request
        pair = self._by_dialog.get((request.call_id, request.to_address.tag))
        is_ours = request.event == "presence" and not request.event_id
        if pair is None or not is_ours or identity.address.domain != pair.presentity.domain:
            incoming.respond(481)
            return
        try:
            status = SubscriptionStatus.parse(request.headers.get("Subscription-State") or "")
            self._enter_dialog(pair, incoming)
            body = unpacked_body(request)
        except UnsupportedBodyError as error:
            incoming.respond(415, str(error), headers=(("Accept-Encoding", ACCEPT_ENCODING),))
            return
        except SipParseError as error:
            incoming.respond(error.status, str(error))
            return
        if body and request.content_type != PIDF_TYPE:
            incoming.respond(415, headers=(("Accept", PIDF_TYPE),))
            return
        incoming.respond(200)
        aftermath = pair.usage.notify_received(status, self._clock.monotonic(), self._chance())
        if status.state is SubscriptionState.ACTIVE:
            self._active(pair, body)
        if status.state is SubscriptionState.TERMINATED:
            self._trace.decision(
                f"subscription of {pair.watcher} to {pair.presentity} ended: {status.reason or 'no reason given'}",
                people=(str(pair.watcher), str(pair.presentity)),
                call_id=request.call_id,
            )
            self._forget_dialog(pair)
            self._aftermath[aftermath](pair, status.retry_after)
        else:
            self._arm(pair)

    def _enter_dialog(self, pair: Pair, incoming: IncomingRequest) -> None:
        """The first NOTIFY makes the dialog: route set and target are its own, not those of the 200 (section 4.4.1)."""
        request = incoming.request
        if pair.dialog is not None and pair.dialog.remote_cseq is not None:
            if pair.dialog.remote_tag != request.from_address.tag:
                raise SipParseError("this subscription has another dialog", status=481)  # a fork: presence takes one
            pair.dialog.receive_request(request)
            return
        transport = incoming.flow.transport
        contact = self._endpoint.contact_uri(escape_user(pair.watcher.local), transport)
        dialog = Dialog.as_server(request, local_tag=request.to_address.tag, local_contact=contact)
        dialog.local_cseq = pair.dialog.local_cseq if pair.dialog is not None else 1
        pair.dialog = dialog

    def _active(self, pair: Pair, body: bytes) -> None:
        """The neighbour let us see: the presence first, so that it is there when the grant is told."""
        if body:
            try:
                document = parse_pidf(body, self._clock.wall())
            except PayloadError as error:
                self._trace.decision(
                    f"presence of {pair.presentity} cannot be read: {error}",
                    people=(str(pair.watcher), str(pair.presentity)),
                    mark="!",
                )
            else:
                self._remote.replace(pair.watcher, pair.presentity, devices_with_person(document))
        if self._contacts.state(pair.watcher, pair.presentity) is AuthorisationState.PENDING:
            self._bus.send(pair.presentity, WatchAnswered(pair.watcher, pair.presentity, is_granted=True))

    # --- aftermath ---

    def _act(self, pair: Pair, aftermath: Aftermath, outcome: SipResponse | TransportError) -> None:
        if aftermath is Aftermath.REPEAT_WITH_MINIMUM:
            wanted = minimum_expires_of(outcome)
            if wanted <= pair.lifetime:
                aftermath = Aftermath.RETRY_LATER  # a neighbour that asks for what it was given
            pair.lifetime = max(pair.lifetime, wanted)
        self._aftermath[aftermath](pair, wait_of(outcome))

    def _kept(self, pair: Pair, _: int | None) -> None:
        self._arm(pair)

    def _repeat(self, pair: Pair, _: int | None) -> None:
        """With a longer lifetime: a live subscription is refreshed, one that has not begun is begun anew."""
        if pair.usage.state is SubscriptionState.ACTIVE:
            self._refresh(pair)
        else:
            self._subscribe_now(pair, None)

    def _subscribe_again(self, pair: Pair, _: int | None) -> None:
        """Gone by accident: once at once, then like anything else that does not last."""
        self._forgive(pair)
        if pair.attempts:
            self._retry_later(pair, None)
            return
        pair.attempts = 1
        self._subscribe_now(pair, None)

    def _forgive(self, pair: Pair) -> None:
        if self._clock.monotonic() - pair.began_at >= SHORT_LIVED_SECONDS:
            pair.attempts = 0

    def _retry_later(self, pair: Pair, wait_at_least: int | None) -> None:
        """Gone for now: people see "unavailable", the authorisation stays."""
        self._forgive(pair)
        self._set_phase(pair, Phase.RETRY, retry_delay(pair.attempts, self._chance(), wait_at_least))
        pair.attempts += 1

    def _nobody_there(self, pair: Pair, _: int | None) -> None:
        self._set_phase(pair, Phase.DEAD, DEAD_SECONDS * (1 + 0.1 * self._chance()))

    def _finished(self, pair: Pair, _: int | None) -> None:
        self._forget_dialog(pair)
        self._cancel_timer(pair)
        pair.phase = Phase.DONE

    def _refused(self, pair: Pair, _: int | None) -> None:
        self._bus.send(pair.presentity, WatchAnswered(pair.watcher, pair.presentity, is_granted=False))

    def _set_phase(self, pair: Pair, phase: Phase, again_in_seconds: float) -> None:
        self._forget_dialog(pair)
        self._cancel_timer(pair)
        pair.phase = phase
        if self._remote.has_view(pair.watcher, pair.presentity):
            self._remote.all_devices_gone(pair.watcher, pair.presentity)
        if not pair.is_ending:
            pair.timer = self._clock.call_later(again_in_seconds, lambda: self._subscribe_now(pair, None))

    # --- time ---

    def _arm(self, pair: Pair) -> None:
        self._cancel_timer(pair)
        deadline = pair.usage.next_deadline()
        if deadline is not None:
            pair.timer = self._clock.call_later(deadline - self._clock.monotonic(), lambda: self._timer(pair))

    def _timer(self, pair: Pair) -> None:
        pair.timer = None
        due = pair.usage.handle_timer(self._clock.monotonic())
        if due is Aftermath.KEPT:
            self._refresh(pair)
        elif due is not None:
            self._trace.decision(
                f"no NOTIFY for the subscription of {pair.watcher} to {pair.presentity}",
                people=(str(pair.watcher), str(pair.presentity)),
                mark="!",
            )
            self._aftermath[due](pair, None)
        else:
            self._arm(pair)

    def _cancel_timer(self, pair: Pair) -> None:
        if pair.timer is not None:
            pair.timer.cancel()
            pair.timer = None

    def _forget_dialog(self, pair: Pair) -> None:
        self._by_dialog.pop(pair.key, None)
        pair.dialog = pair.subscribe = None

    def _trace_failure(self, pair: Pair, outcome: SipResponse | TransportError) -> None:
        said = f"{outcome.status} {outcome.reason}" if isinstance(outcome, SipResponse) else str(outcome)
        self._trace.decision(
            f"SUBSCRIBE of {pair.watcher} to {pair.presentity} failed: {said}",
            people=(str(pair.watcher), str(pair.presentity)),
            mark="!",
        )
