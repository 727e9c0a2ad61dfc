"""Callers played by SIPp: whole calls, among them those that go wrong in known ways. `play_call` runs them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.support.sipp import acknowledge, step
from tests.support.sipp_call_steps import HERE, pause, receive, respond_in_dialog, response, say, session


@dataclass(frozen=True)
class Caller:
    """Who calls whom; its methods are the steps of the caller's side.

    Args:
        sender, target: SIP URIs.
    """

    sender: str
    target: str

    def invite(self, *headers: str, sdp: str | None = None) -> str:
        """The first INVITE; `sdp` "" is one without an offer."""
        return self._request("INVITE", 1, self.target, "", headers, session() if sdp is None else sdp)

    def cancel(self) -> str:
        """CANCEL of the INVITE, with its branch."""
        text = f"""CANCEL {self.target} SIP/2.0
[last_Via:]
Max-Forwards: 70
From: <{self.sender}>;tag=[pid]t[call_number]
To: <{self.target}>
Call-ID: [call_id]
CSeq: 1 CANCEL
Content-Length: 0

"""
        return step("send", text, 'retrans="500"')

    def acknowledge_refusal(self) -> str:
        return acknowledge(self.target, self.sender)

    def acknowledge(self, *, number: int = 1, sdp: str = "") -> str:
        """The ACK of a 200, with an answer when the INVITE had no offer."""
        return self._request("ACK", number, "[next_url]", "[peer_tag_param]", (), sdp, is_sent_again=False)

    def inside(self, method: str, number: int, *headers: str, sdp: str = "") -> str:
        """A request in the dialog, with this CSeq number."""
        return self._request(method, number, "[next_url]", "[peer_tag_param]", headers, sdp)

    def hang_up(self, number: int = 2) -> str:
        return self.inside("BYE", number) + response(200)

    def _request(
        self,
        method: str,
        number: int,
        uri: str,
        tag: str,
        headers: Iterable[str],
        sdp: str,
        *,
        is_sent_again: bool = True,
    ) -> str:
        lines = [
            f"{method} {uri} SIP/2.0",
            "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]",
            *(["[routes]"] if tag else []),
            "Max-Forwards: 70",
            f"From: <{self.sender}>;tag=[pid]t[call_number]",
            f"To: <{self.target}>{tag}",
            "Call-ID: [call_id]",
            f"CSeq: {number} {method}",
            f"Contact: <{HERE}>",
            "Allow: INVITE, ACK, CANCEL, BYE, UPDATE, PRACK, NOTIFY, REFER",
            *headers,
            *(["Content-Type: application/sdp"] if sdp else []),
            "Content-Length: [len]",
        ]
        return step("send", "\n".join(lines) + f"\n\n{sdp}", 'retrans="500"' if is_sent_again else "")

    # --- whole calls ---

    def waits(self, *, status: int = 200) -> str:
        """Everything that may come before the answer, and the answer."""
        before = "".join(response(early, is_optional=True) for early in (100, 180, 181, 182, 183))
        return before + response(status)

    def talks(self, sound: Path, milliseconds: int) -> str:
        """A whole call that says a tone for a while."""
        return "".join(
            (self.invite(), self.waits(), self.acknowledge(), say(sound), pause(milliseconds), self.hang_up())
        )

    def gets(self, status: int, *headers: str) -> str:
        """A call that is refused with this status."""
        return self.invite(*headers) + self.waits(status=status) + self.acknowledge_refusal()

    def gives_up(self) -> str:
        """CANCEL after it rings, and a 487."""
        return "".join(
            (
                self.invite(),
                response(100, is_optional=True),
                response(180),
                self.cancel(),
                response(200),
                response(487),
                self.acknowledge_refusal(),
            )
        )

    def gives_up_at_once(self) -> str:
        """CANCEL as soon as the server has the INVITE: it may have been answered (RFC 3261 section 9.1)."""
        return "".join(
            (
                self.invite(),
                response(100),
                self.cancel(),
                response(180, is_optional=True),
                response(200, is_optional=True),
                response(487),
                self.acknowledge_refusal(),
            )
        )

    def offers_late(self, sound: Path, milliseconds: int) -> str:
        """An INVITE without an offer: the answer is in the ACK (RFC 3261 section 13.2.1)."""
        return "".join(
            (
                self.invite(sdp=""),
                self.waits(),
                self.acknowledge(sdp=session()),
                say(sound),
                pause(milliseconds),
                self.hang_up(),
            )
        )

    def holds(self, sound: Path, milliseconds: int) -> str:
        """Talks, holds for a while with sendonly, and talks again."""
        hold, resume = (session(direction=way, version=v) for way, v in (("sendonly", 2), ("sendrecv", 3)))
        steps = [self.invite(), self.waits(), self.acknowledge(), say(sound), pause(milliseconds)]
        for number, sdp in ((2, hold), (3, resume)):
            steps += [self.inside("INVITE", number, sdp=sdp), response(100, is_optional=True), response(200)]
            steps += [self.acknowledge(number=number), pause(milliseconds)]
        return "".join((*steps, self.hang_up(4)))

    def needs_acknowledged_ringing(self, sound: Path, milliseconds: int, *, status: int = 180) -> str:
        """Require: 100rel (RFC 3262): what comes before the answer must be reliable, and gets a PRACK."""
        keep = '<ereg regexp="[0-9]+" search_in="hdr" header="RSeq:" check_it="true" assign_to="1"/>'
        return "".join(
            (
                self.invite("Require: 100rel"),
                response(100, is_optional=True),
                response(status, keep),
                self.inside("PRACK", 2, "RAck: [$1] 1 INVITE"),
                response(200),
                response(200),
                self.acknowledge(),
                say(sound),
                pause(milliseconds),
                self.hang_up(3),
            )
        )

    def never_acknowledges(self) -> str:
        """The 200 is not acknowledged: the other side gives up after 64*T1 with a BYE (RFC 3261 section 13.3.1.4)."""
        return "".join((self.invite(), self.waits(), receive("BYE"), respond_in_dialog(200, "OK")))

    def refreshes(self, seconds: int, milliseconds: int) -> str:
        """A session timer of ours (RFC 4028), refreshed once with an INVITE without a change."""
        timer = ("Supported: timer", f"Session-Expires: {seconds};refresher=uac")
        check = '<ereg regexp=".*" search_in="hdr" header="Session-Expires:" check_it="true" assign_to="1"/>'
        return "".join(
            (
                self.invite(*timer),
                "".join(response(early, is_optional=True) for early in (100, 180, 183)),
                response(200, check, '<log message="[$1]"/>'),
                self.acknowledge(),
                pause(milliseconds),
                self.inside("INVITE", 2, *timer, sdp=session()),
                response(100, is_optional=True),
                response(200),
                self.acknowledge(number=2),
                self.hang_up(3),
            )
        )

    def transfers(self, target: str) -> str:
        """REFER in the call (RFC 3515), a NOTIFY that says 200, and then the call is ended from here."""
        check = '<ereg regexp="SIP/2.0 200" search_in="body" check_it="true" assign_to="1"/><log message="[$1]"/>'
        return "".join(
            (
                self.invite(),
                self.waits(),
                self.acknowledge(),
                self.inside("REFER", 2, f"Refer-To: <{target}>", f"Referred-By: <{self.sender}>"),
                response(202),
                receive("NOTIFY"),
                respond_in_dialog(200, "OK"),
                receive("NOTIFY", check),
                respond_in_dialog(200, "OK"),
                self.hang_up(3),
            )
        )

    def meets_glare(self) -> str:
        """Answers the other side's re-INVITE with 491 and takes the one that is sent again (RFC 3261 section 14.1)."""
        return "".join(
            (
                self.invite(),
                self.waits(),
                self.acknowledge(),
                receive("INVITE"),
                respond_in_dialog(491, "Request Pending"),
                receive("ACK"),
                receive("INVITE"),
                respond_in_dialog(200, "OK", sdp=session(version=2)),
                receive("ACK"),
                receive("BYE"),
                respond_in_dialog(200, "OK"),
            )
        )

    def is_transferred_away(self, target: str, notified: int, *headers: str) -> str:
        """REFER in the call; `notified` NOTIFYs tell of it, the last of success, and then the other side hangs up."""
        check = '<ereg regexp="SIP/2.0 200" search_in="body" check_it="true" assign_to="1"/><log message="[$1]"/>'
        told = [receive("NOTIFY", *([check] if last else [])) for last in [False] * (notified - 1) + [True]]
        return "".join(
            (
                self.invite(),
                self.waits(),
                self.acknowledge(),
                self.inside("REFER", 2, f"Refer-To: <{target}>", f"Referred-By: <{self.sender}>", *headers),
                response(202),
                *(notify + respond_in_dialog(200, "OK") for notify in told),
                receive("BYE"),
                respond_in_dialog(200, "OK"),
            )
        )

    def stays(self) -> str:
        """A call that is left alone until the other side ends it."""
        ended = receive("BYE") + respond_in_dialog(200, "OK")
        return "".join((self.invite(), self.waits(), self.acknowledge(), ended))
