"""What a media relay is told for each pair of media forms (rtpengine NG protocol, written for and measured on 10.5).

Rows, not branches: how the description must look on the other side decides transport, keys and ICE; codecs depend on
both sides. Unknown flags are ignored by the relay without an error, so tests hold what comes back against real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from isthmus.model import MediaForm

RelayCommand: TypeAlias = dict[str, Any]
"""A command of the NG protocol: a JSON object."""

Step: TypeAlias = Literal["offer", "answer"]

# 10.5 offers these beside the two that phones know, and for lack of a list of what is wanted each is switched off.
# NULL_HMAC is no encryption at all.
_UNWANTED_SUITES = (
    "AEAD_AES_256_GCM",
    "AEAD_AES_128_GCM",
    "AES_256_CM_HMAC_SHA1_80",
    "AES_256_CM_HMAC_SHA1_32",
    "AES_192_CM_HMAC_SHA1_80",
    "AES_192_CM_HMAC_SHA1_32",
    "F8_128_HMAC_SHA1_80",
    "F8_128_HMAC_SHA1_32",
    "NULL_HMAC_SHA1_80",
    "NULL_HMAC_SHA1_32",
)

# For every command: addresses are ours alone (nobody learns where the other person is), the version in o= rises with
# the content, and an end keeps its relay port when the other end is replaced, so that a transfer needs no new offer.
_REPLACED = ("origin", "session-connection", "SDP version")
_FLAGS = ("trust address", "port latching")

_PLAIN = {"ICE": "remove", "rtcp-mux": ["demux"]}
_WEBRTC = {"transport protocol": "UDP/TLS/RTP/SAVPF", "ICE": "force", "SDES": ["off"]}
_SDES = {
    **_PLAIN,
    "transport protocol": "RTP/SAVP",
    "SDES": [f"no-{suite}" for suite in _UNWANTED_SUITES],
}
# RFC 5763 section 5: the answerer should be active. Measured with Chromium, too: with a passive relay the handshake did
# not always finish. A relay that is told so still answers "passive" to an offer that says "active".
_ACTIVE = {"DTLS": "active"}

_TOWARDS: dict[tuple[MediaForm, Step], Mapping[str, Any]] = {
    (MediaForm.WEBRTC, "offer"): {**_WEBRTC, "rtcp-mux": ["offer", "require"]},
    (MediaForm.WEBRTC, "answer"): {**_WEBRTC, **_ACTIVE, "rtcp-mux": ["require"]},
    (MediaForm.DTLS, "offer"): {**_PLAIN, "transport protocol": "UDP/TLS/RTP/SAVP", "SDES": ["off"]},
    (MediaForm.DTLS, "answer"): {**_PLAIN, **_ACTIVE, "transport protocol": "UDP/TLS/RTP/SAVP", "SDES": ["off"]},
    # With keys of both kinds: a phone that knows only the other one may answer RTP/SAVP with a fingerprint whatever was
    # offered (baresip does), and there is one attempt less until the phone rings.
    (MediaForm.SDES, "offer"): {**_SDES},
    (MediaForm.SDES, "answer"): {**_SDES, "DTLS": "off"},
    **{
        (MediaForm.RTP, step): {**_PLAIN, "transport protocol": "RTP/AVP", "DTLS": "off", "SDES": ["off"]}
        for step in ("offer", "answer")
    },
}
_WEBRTC_FLAGS = ("generate mid", "trickle ICE", "no rtcp attribute")

# Codecs are added at the end of what the offerer has and nothing is hidden: the answerer prefers a common one, which
# then passes untouched, and the relay transcodes only for a pair that shares none. (Hiding opus from phones, `mask`,
# would force transcoding on phones that know it, and loses telephone-event on the way.)
# telephone-event is added for the clock rate of each added codec (RFC 4733 section 2.4.1: the rates must be equal).
_PHONE_CODECS = ("PCMA", "PCMU", "G722", "telephone-event")
_WEB_CODECS = ("opus", "telephone-event")
# What repeats or repairs other streams means nothing without the browser's header extensions and SSRC groups, which the
# relay does not carry over: red with `fmtp 111/111` would even look like a codec.
_REPAIR_CODECS = ("red", "rtx", "ulpfec", "flexfec-03")


def _codecs(source: MediaForm, target: MediaForm) -> RelayCommand:
    added = _WEB_CODECS if target is MediaForm.WEBRTC else _PHONE_CODECS
    if source is target:
        # Two of a kind have a codec in common: browsers must have opus and G.711 (RFC 7874), phones have G.711.
        return {} if target is MediaForm.WEBRTC else {"transcode": list(added)}
    stripped = _REPAIR_CODECS if source is MediaForm.WEBRTC else ()
    return {**({"strip": list(stripped)} if stripped else {}), "transcode": list(added)}


def negotiation(
    step: Step, *, call_id: str, offerer: str, answerer: str, sdp: str, source: MediaForm, target: MediaForm
) -> RelayCommand:
    """Return the command that rewrites an offer or answer.

    Args:
        step: "offer" or "answer".
        call_id: of the relay's call.
        offerer, answerer: tags of the two ends in this offer/answer exchange, whoever called.
        sdp: what this end said.
        source: what it looks like.
        target: what it must look like on the other side.
    """
    flags = [*_FLAGS]
    if target is MediaForm.WEBRTC:
        flags += _WEBRTC_FLAGS
    if source in {MediaForm.RTP, MediaForm.SDES}:
        # Once the phone's address is learnt nobody else can put sound into the call. With ICE its checks do that, and
        # a nominated pair may change.
        flags.append("strict source")
    command: RelayCommand = {
        "command": step,
        "call-id": call_id,
        "from-tag": offerer,
        "to-tag": answerer,
        "sdp": sdp,
        "flags": flags,
        "replace": list(_REPLACED),
        **_TOWARDS[target, step],
    }
    if step == "offer" and (codecs := _codecs(source, target)):
        command["codec"] = codecs
    return command


def trickled(*, call_id: str, tag: str, fragment: str) -> RelayCommand:
    """Return the command that adds candidates (RFC 8840 section 9) to what the end `tag` said."""
    return {"command": "offer", "call-id": call_id, "from-tag": tag, "sdp": fragment, "flags": ["fragment"]}


def query(call_id: str) -> RelayCommand:
    """Return the command that asks for the counters of a call."""
    return {"command": "query", "call-id": call_id}


def deletion(call_id: str, tag: str = "") -> RelayCommand:
    """Return the command that ends a call at once, or takes one end out of it."""
    command: RelayCommand = {"command": "delete", "call-id": call_id, "delete delay": 0}
    return {**command, "from-tag": tag} if tag else command
