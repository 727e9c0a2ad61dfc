"""Session descriptions as ends of each form write them."""

from __future__ import annotations

from isthmus.model import MediaForm
from isthmus.sdp.session_description import SessionDescription

_NAMES = {
    "0": "PCMU/8000",
    "8": "PCMA/8000",
    "9": "G722/8000",
    "63": "red/48000/2",
    "101": "telephone-event/8000",
    "110": "telephone-event/48000",
    "111": "opus/48000/2",
    "126": "telephone-event/8000",
}
_PROFILES = {
    MediaForm.WEBRTC: "UDP/TLS/RTP/SAVPF",
    MediaForm.DTLS: "UDP/TLS/RTP/SAVP",
    MediaForm.SDES: "RTP/SAVP",
    MediaForm.RTP: "RTP/AVP",
}
FINGERPRINT = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32)
_ICE = ("a=ice-ufrag:q1Zx", "a=ice-pwd:7Yk2mD0sWv4pLr8nTb6cHg", "a=rtcp-mux")
_CRYPTO = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"


def audio(
    form: MediaForm, *codecs: int, port: int = 40_000, setup: str = "actpass", extra: tuple[str, ...] = ()
) -> SessionDescription:
    """One section of sound.

    Args:
        codecs: payload types, of those that have a name here.
        setup: DTLS role, where there is one.
        extra: further lines at the end.
    """
    is_web = form is MediaForm.WEBRTC
    address = "0.0.0.0" if is_web else "127.0.0.1"
    formats = [str(codec) for codec in codecs]
    lines = ["v=0", "o=- 7 1 IN IP4 192.0.2.7", "s=-", f"c=IN IP4 {address}", "t=0 0"]
    lines += [f"m=audio {9 if is_web else port} {_PROFILES[form]} {' '.join(formats)}"]
    lines += [f"a=rtpmap:{format_} {_NAMES[format_]}" for format_ in formats]
    if is_web:
        lines += [*_ICE, "a=mid:0"]
    if form in {MediaForm.WEBRTC, MediaForm.DTLS}:
        lines += [FINGERPRINT, f"a=setup:{setup}"]
    if form is MediaForm.SDES:
        lines += [_CRYPTO]
    return SessionDescription.parse("\r\n".join([*lines, "a=sendrecv", *extra]) + "\r\n")


BROWSER_OFFER = SessionDescription.parse(
    "\r\n".join(
        [
            "v=0",
            "o=- 5216 2 IN IP4 127.0.0.1",
            "s=-",
            "t=0 0",
            "a=group:BUNDLE 0 1",
            "a=extmap-allow-mixed",
            "a=msid-semantic: WMS stream",
            "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 110 126",
            "c=IN IP4 0.0.0.0",
            "a=rtcp:9 IN IP4 0.0.0.0",
            *_ICE,
            "a=ice-options:trickle",
            FINGERPRINT,
            "a=setup:actpass",
            "a=mid:0",
            "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            "a=sendrecv",
            "a=msid:stream voice",
            "a=rtcp-rsize",
            "a=rtpmap:111 opus/48000/2",
            "a=rtcp-fb:111 transport-cc",
            "a=fmtp:111 minptime=10;useinbandfec=1",
            "a=rtpmap:63 red/48000/2",
            "a=fmtp:63 111/111",
            "a=rtpmap:9 G722/8000",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:8 PCMA/8000",
            "a=rtpmap:110 telephone-event/48000",
            "a=rtpmap:126 telephone-event/8000",
            "a=ssrc:3570614608 cname:4TOk42mSjXCkVIa6",
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
            "c=IN IP4 0.0.0.0",
            *_ICE,
            "a=ice-options:trickle",
            FINGERPRINT,
            "a=setup:actpass",
            "a=mid:1",
            "a=extmap:2 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            "a=sendrecv",
            "a=msid:stream face",
            "a=rtcp-rsize",
            "a=rtpmap:96 VP8/90000",
            "a=rtcp-fb:96 goog-remb",
            "a=rtcp-fb:96 transport-cc",
            "a=rtcp-fb:96 nack",
            "a=rtcp-fb:96 nack pli",
            "a=rtpmap:97 rtx/90000",
            "a=fmtp:97 apt=96",
            "a=ssrc-group:FID 2231627014 632943048",
            "a=ssrc:2231627014 cname:4TOk42mSjXCkVIa6",
        ]
    )
    + "\r\n"
)
"""What Chromium offers, shortened: sound and pictures in one bundle."""
