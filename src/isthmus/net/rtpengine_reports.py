"""What a `query` of rtpengine tells: who sent how much, how well it arrived. Written for 10.5, read leniently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from isthmus.ports import MediaQuality


def qualities(reply: Mapping[str, Any]) -> tuple[MediaQuality, ...]:
    """Return the counters of each medium of each end; what the relay does not know is None or 0.

    Loss, jitter, round trip and MOS are the relay's averages of what RTCP reports said (RFC 3550 section 6.4), so they
    are there only where an end sends any.
    """
    reports = _mapping(reply.get("SSRC"))
    found = []
    for party, section in _sections(reply):
        streams = [_mapping(stream) for stream in _list(section.get("streams"))]
        if not streams:
            continue
        counted = _mapping(streams[0].get("stats"))
        report = _mapping(reports.get(str(streams[0].get("SSRC", ""))))
        average = _mapping(report.get("average MOS"))
        has_samples = _number(average.get("samples")) > 0
        round_trip = _number(average.get("round-trip time leg"))
        found.append(
            MediaQuality(
                media=str(section.get("type", "")),
                party=party,
                packets=int(_number(counted.get("packets"))),
                octets=int(_number(counted.get("bytes"))),
                lost=int(_number(report.get("cumulative loss"))),
                jitter_ms=_number(average.get("jitter")) if has_samples else None,
                round_trip_ms=round_trip / 1000 if has_samples and round_trip else None,  # microseconds
                mos=_number(average.get("MOS")) / 10 if has_samples else None,  # told in tenths
            )
        )
    return tuple(found)


def packets_by_sender(reply: Mapping[str, Any]) -> dict[str, int]:
    """Return how many packets (RTP and RTCP) came from each end that should be sending now.

    An end that only listens, or is on hold on both sides, is left out: its silence means nothing.
    """
    counts: dict[str, int] = {}
    for party, section in _sections(reply):
        # The relay's flags are its own: it receives from an end that sends.
        if "recv" not in _list(section.get("flags")):
            continue
        streams = [_mapping(_mapping(stream).get("stats")) for stream in _list(section.get("streams"))]
        counts[party] = counts.get(party, 0) + sum(int(_number(stats.get("packets"))) for stats in streams)
    return counts


def _sections(reply: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for party, end in _mapping(reply.get("tags")).items():
        for section in _list(_mapping(end).get("medias")):
            yield party, _mapping(section)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
