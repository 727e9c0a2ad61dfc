"""RFC 3339 timestamps, as PIDF, CPIM, IMDN, isComposing and XEP-0082 write them."""

from __future__ import annotations

from datetime import UTC, datetime


def format_timestamp(at: float) -> str:
    """Return Unix seconds as `2026-11-22T17:40:00Z` (capital T and Z: RFC 3863 section 4.1.7), whole seconds."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_precise_timestamp(at: float) -> str:
    """Like `format_timestamp` with milliseconds: successive PIDF documents must not repeat a timestamp."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def parse_timestamp(text: str) -> float | None:
    """Return Unix seconds, or None when the text is no date-time with an offset (a local time says nothing)."""
    try:
        parsed = datetime.fromisoformat(text.strip().upper())
    except ValueError:
        return None
    if parsed.tzinfo is None:
        return None
    try:
        return parsed.timestamp()
    except (OverflowError, ValueError):
        return None
