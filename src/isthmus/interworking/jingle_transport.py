"""The ICE-UDP transport of Jingle and what is about ICE and DTLS in a media section (XEP-0176, XEP-0320)."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable

from slixmpp.xmlstream import ElementBase

from isthmus.interworking.jingle_senders import one_line, token
from isthmus.sdp.session_description import Attribute, MediaDescription, SdpError, SessionDescription, read_number
from isthmus.xmpp.jingle_dtls import Fingerprint
from isthmus.xmpp.jingle_ice_udp import Candidate, Transport

# A host with ten addresses, STUN and two TURN servers has about 50 for each component.
MAXIMUM_CANDIDATES = 128
# XEP-0176 calls the foundation an unsigned byte.
MAXIMUM_FOUNDATIONS = 255
_TYPES = frozenset(("host", "prflx", "relay", "srflx"))
_FOUNDATION = re.compile(r"[A-Za-z0-9+/]{1,32}")
_ROLES = frozenset(("actpass", "active", "passive"))
_HEX = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2})*")
_CREDENTIAL = re.compile(r"[A-Za-z0-9+/=\-_]{1,256}")

ICE_ATTRIBUTES = ("ice-ufrag", "ice-pwd", "ice-options", "candidate", "end-of-candidates", "remote-candidates")
DTLS_ATTRIBUTES = ("fingerprint", "setup", "tls-id")


# --- Jingle to SDP --------------------------------------------------------------------------------------------


def transport_to_attributes(transport: Transport) -> tuple[Attribute, ...]:
    """Return the lines about ICE and DTLS that a transport stands for.

    `ice-options:trickle` is always among them: Jingle has no such word because all its clients trickle, and rtpengine
    takes a section without candidates and without it for one on hold.

    Raises:
        SdpError: more candidates than any device has.
    """
    lines: list[Attribute] = []
    if _CREDENTIAL.fullmatch(transport["ufrag"]) and _CREDENTIAL.fullmatch(transport["pwd"]):
        lines += [Attribute("ice-ufrag", transport["ufrag"]), Attribute("ice-pwd", transport["pwd"])]
        lines.append(Attribute("ice-options", "trickle"))
    fingerprints = transport["fingerprints"][:8]
    for fingerprint in fingerprints:
        value = fingerprint["value"]
        if token(fingerprint["hash"]) and _HEX.fullmatch(value):
            lines.append(Attribute("fingerprint", f"{fingerprint['hash'].lower()} {value.upper()}"))
    role = next((said for fingerprint in fingerprints if (said := fingerprint["setup"]) in _ROLES), "")
    lines += [Attribute("setup", role)] if role else []
    return (*lines, *(Attribute("candidate", value) for value in transport_to_candidates(transport)))


def transport_to_candidates(transport: Transport) -> tuple[str, ...]:
    """Return the values of `a=candidate`; those that are no UDP candidates with an address are left out."""
    candidates = transport["candidates"]
    if len(candidates) > MAXIMUM_CANDIDATES:
        raise SdpError(f"more than {MAXIMUM_CANDIDATES} candidates in a Jingle transport")
    found = (_candidate_to_value(candidate) for candidate in candidates)
    return tuple(dict.fromkeys(value for value in found if value))


def _address(text: str) -> str:
    """Return an IP address in its usual form, "" for anything else (names of mDNS, zones)."""
    try:
        return "" if "%" in text else str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return ""


def _candidate_to_value(candidate: ElementBase) -> str:
    component = read_number(candidate["component"], 256)
    priority = read_number(candidate["priority"], 2**32 - 1)
    port = read_number(candidate["port"], 65_535)
    address, kind = _address(candidate["ip"]), candidate["type"]
    is_udp = candidate["protocol"].lower() == "udp"
    if not (component and priority is not None and port and address and kind in _TYPES and is_udp):
        return ""
    words = [_foundation(candidate["foundation"]), str(component), "udp", str(priority), address, str(port)]
    words += ["typ", kind]
    if kind != "host":
        # RFC 8839 section 5.1: they must say it; what hides its address says the unspecified one and port 9.
        related = _address(candidate["rel-addr"])
        port = read_number(candidate["rel-port"], 65_535)
        unspecified = "::" if ":" in address else "0.0.0.0"  # noqa: S104 - written, not bound
        words += ["raddr", related or unspecified, "rport", str(9 if port is None or not related else port)]
    for name, key in (("generation", "generation"), ("network-id", "network")):
        number = read_number(candidate[key], 65_535)
        words += [name, str(number)] if number else []
    return " ".join(words)


def _foundation(said: str) -> str:
    if _FOUNDATION.fullmatch(said):
        return said
    return hashlib.blake2s(one_line(said).encode("utf-8", "replace"), digest_size=8).hexdigest()


# --- SDP to Jingle --------------------------------------------------------------------------------------------


class Foundations:
    """Small numbers for the foundations of candidates, different for different ones, in the order they appear.

    Args:
        known: descriptions whose candidates were sent before, so that later ones get the numbers those had.
    """

    def __init__(self, known: Iterable[SessionDescription] = ()) -> None:
        self._numbers: dict[str, int] = {}
        for sdp in known:
            for section in sdp.media:
                for value in section.candidates:
                    self.number_of(value.split(" ", 1)[0])

    def number_of(self, foundation: str) -> int | None:
        """Return the number, or None when there are more foundations than numbers."""
        if foundation not in self._numbers and len(self._numbers) >= MAXIMUM_FOUNDATIONS:
            return None
        return self._numbers.setdefault(foundation, len(self._numbers) + 1)


def section_to_transport(
    section: MediaDescription, name: str, foundations: Foundations, *, has_candidates: bool = True, is_answer: bool
) -> Transport:
    """Return the transport for a media section (`SessionDescription.flattened` before).

    Args:
        section: a live section.
        name: of the content; makes the ids of candidates unique within the session.
        foundations: of the session.
        has_candidates: write the candidates as well.
        is_answer: the DTLS role must be decided (RFC 8842 section 5.3).
    """
    transport = Transport()
    if section.ice_ufrag and section.ice_pwd:
        transport["ufrag"], transport["pwd"] = section.ice_ufrag, section.ice_pwd
    for value in section.fingerprints:
        function, _, octets = value.strip().partition(" ")
        fingerprint = Fingerprint()
        fingerprint["hash"] = function.lower()
        fingerprint["setup"] = _role(section.setup, is_answer=is_answer)
        fingerprint["value"] = octets.strip()
        transport.append(fingerprint)
    if has_candidates:
        for candidate in candidates_to_elements(section.candidates, name, foundations):
            transport.append(candidate)
    return transport


def _role(said: str, *, is_answer: bool) -> str:
    # XEP-0320 has no holdconn; RFC 8842 section 5.3: an answer without a role, or with both, is that of the client.
    if is_answer:
        return said if said in {"active", "passive"} else "active"
    return said if said in _ROLES else "actpass"


def candidates_to_elements(values: Iterable[str], name: str, foundations: Foundations) -> list[Candidate]:
    """Return those that XEP-0176 can carry: UDP, with an address (a name of mDNS means nothing outside its LAN)."""
    found = (_value_to_candidate(value, name, foundations) for value in dict.fromkeys(values))
    return [candidate for candidate in found if candidate is not None][:MAXIMUM_CANDIDATES]


def _value_to_candidate(value: str, name: str, foundations: Foundations) -> Candidate | None:
    words = value.split()
    if len(words) < 8 or words[6] != "typ" or words[2].lower() != "udp" or words[7] not in _TYPES:
        return None
    address = _address(words[4])
    numbers = [read_number(words[1], 256), read_number(words[3], 2**32 - 1), read_number(words[5], 65_535)]
    foundation = foundations.number_of(words[0])
    if not address or None in numbers or foundation is None:
        return None
    more = dict(zip(words[8::2], words[9::2], strict=False))
    candidate = Candidate()
    candidate["component"], candidate["priority"], candidate["port"] = (str(number) for number in numbers)
    candidate["foundation"] = str(foundation)
    candidate["generation"] = str(read_number(more.get("generation", "0"), 255) or 0)
    candidate["id"] = _identifier(value, name)
    candidate["ip"] = address
    candidate["protocol"] = "udp"
    candidate["type"] = words[7]
    if read_number(more.get("network-id", ""), 255) is not None:
        candidate["network"] = more["network-id"]
    if words[7] != "host" and _address(more.get("raddr", "")):
        candidate["rel-addr"] = _address(more["raddr"])
        candidate["rel-port"] = str(read_number(more.get("rport", "9"), 65_535) or 0)
    return candidate


def _identifier(value: str, name: str) -> str:
    # The same candidate told again keeps its id; an NCName must not begin with a digit.
    return "c" + hashlib.blake2s(f"{name}\n{value}".encode("utf-8", "replace"), digest_size=8).hexdigest()
