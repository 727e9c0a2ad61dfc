"""`isthmus doctor`: looks at everything that must be right before a message can cross, and says what to do.

Each check returns findings and never raises; one that breaks is itself a finding. Checks touch nothing: they ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from isthmus.admin.doctor_certificates import check_certificates, check_peer_certificates
from isthmus.admin.doctor_configuration import check_configuration, check_ports
from isthmus.admin.doctor_names import Lookup, check_names
from isthmus.admin.doctor_xmpp import check_xmpp
from isthmus.config import Configuration
from isthmus.services.administration import Finding
from isthmus.services.echo_probe import EchoProbe

# A partner that does not answer must not keep the administrator waiting.
CHECK_SECONDS = 30.0

_log = structlog.get_logger(__name__)

Check = Callable[[], Awaitable[list[Finding]]]


class Examination:
    """All checks; implements `services.administration.Doctor`.

    Args:
        lookup: DNS.
        wall: Unix seconds, for certificate dates.
        links: whether each business domain's component stream is connected; None outside a running server.
        probe: round trips through the running server; None outside.
        media: looks at relays and TURN; None: not looked at.
    """

    def __init__(
        self,
        configuration: Configuration,
        lookup: Lookup,
        wall: Callable[[], float],
        *,
        links: Callable[[], Mapping[str, bool]] | None = None,
        probe: EchoProbe | None = None,
        media: Check | None = None,
    ) -> None:
        self._configuration = configuration
        self._lookup = lookup
        self._wall = wall
        self._links = links
        self._probe = probe
        self._media = media

    async def examine(self) -> list[Finding]:
        """Run all checks, those without order side by side."""
        is_live = self._links is not None
        checks: Sequence[tuple[str, Check]] = (
            ("configuration", lambda: check_configuration(self._configuration)),
            ("dns", lambda: check_names(self._configuration, self._lookup)),
            ("certificates", lambda: check_certificates(self._configuration, self._wall())),
            ("partner certificates", lambda: check_peer_certificates(self._configuration, self._wall())),
            ("ports", lambda: check_ports(self._configuration, is_live=is_live)),
            ("xmpp", lambda: check_xmpp(self._configuration, self._links)),
            *([("media", self._media)] if self._media is not None else []),
        )
        groups = await asyncio.gather(*(_guarded(name, check) for name, check in checks))
        # Last, and after all others: it needs them to be right.
        round_trips = await _guarded("round trip", self._round_trips)
        return [finding for group in (*groups, round_trips) for finding in group]

    async def _round_trips(self) -> list[Finding]:
        if self._probe is None and self._links is not None:
            return [Finding("round trip", "warn", "not tried: this server has no probe")]
        if self._probe is None:
            return [
                Finding("round trip", "warn", "not tried: the server does not run", "start it with `isthmus serve`")
            ]
        found = []
        # Both ways in: one-way trouble shows only when each side begins a conversation (edge case 48).
        for direction in ("sip", "xmpp"):
            result = await self._probe.round_trip(direction)
            if not result.is_tried:
                found.append(Finding(f"round trip {direction}", "warn", f"not tried: {result.detail}"))
                continue
            detail = f"{result.detail} ({result.seconds * 1000:.0f} ms)"
            remedy = "" if result.has_returned else "follow it with `isthmus trace` and ask `isthmus doctor` again"
            found.append(Finding(f"round trip {direction}", "ok" if result.has_returned else "fail", detail, remedy))
        return found


async def _guarded(name: str, check: Check) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return [Finding(name, "fail", f"no answer within {CHECK_SECONDS:.0f} s", "see whether the network answers")]
    except Exception as error:  # a broken check must not hide the others
        _log.exception("a check failed", check=name)
        return [Finding(name, "fail", f"the check itself failed: {error}", "report this with the server's log")]
