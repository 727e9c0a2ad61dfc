"""Long texts in parts that fit a MESSAGE over UDP: RFC 3428 section 8 allows 1300 octets for the whole request."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

from isthmus.model import Message

# RFC 3428 section 8: a MESSAGE larger than this may not leave over a transport without congestion control.
MAXIMUM_REQUEST_OCTETS = 1300
# Below this a part would be mostly numbering, and the progress of the split could not be promised.
MINIMUM_PART_OCTETS = 32

_ZERO_WIDTH_JOINER = "\u200d"
# How far back from the limit a space is looked for: a word is rarely longer.
_WORD_OCTETS = 60


def split_text(text: str, maximum_octets: int, *, is_numbered: bool = False) -> list[str]:
    """Split a text into parts whose UTF-8 form fits, between characters and if possible between words.

    Joined without their numbers, the parts are the text exactly (edge case 18).

    Args:
        text: any text; a text that fits comes back as its only part, unnumbered.
        maximum_octets: limit of each part, at least MINIMUM_PART_OCTETS.
        is_numbered: put `(1/3) ` before each part; the number counts towards the limit.

    Raises:
        ValueError: the limit is too small.
    """
    if maximum_octets < MINIMUM_PART_OCTETS:
        raise ValueError(f"a part needs at least {MINIMUM_PART_OCTETS} octets")
    if len(text.encode()) <= maximum_octets:
        return [text]
    if not is_numbered:
        return _split(text, maximum_octets)
    digits = 1
    while True:
        parts = _split(text, maximum_octets - len("(/) ") - 2 * digits)
        if len(parts) < 10**digits:
            return [f"({number}/{len(parts)}) {part}" for number, part in enumerate(parts, 1)]
        digits += 1


def _split(text: str, maximum_octets: int) -> list[str]:
    parts: list[str] = []
    begin = 0
    while begin < len(text):
        end = _furthest_end(text, begin, maximum_octets)
        if end < len(text):
            end = _better_end(text, begin, end)
        parts.append(text[begin:end])
        begin = end
    return parts


def _furthest_end(text: str, begin: int, maximum_octets: int) -> int:
    """Return the largest index so that the UTF-8 form of text[begin:index] fits."""
    octets = text[begin : begin + maximum_octets].encode()
    # `ignore` drops the character that the cut went through.
    return begin + len(octets[:maximum_octets].decode("utf-8", "ignore"))


def _better_end(text: str, begin: int, end: int) -> int:
    """Move a cut back to after a space, or else to before the cluster it would tear apart (accents, joined emoji)."""
    for index in range(end, max(begin, end - _WORD_OCTETS), -1):
        if text[index - 1].isspace():
            return index
    index = end
    while index > begin and _continues_cluster(text, index):
        index -= 1
    return index if index > begin else end


def _continues_cluster(text: str, index: int) -> bool:
    character = text[index]
    return (
        unicodedata.combining(character) != 0
        or character == _ZERO_WIDTH_JOINER
        or text[index - 1] == _ZERO_WIDTH_JOINER
        or "\ufe00" <= character <= "\ufe0f"  # variation selectors
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
    )


def split_message(message: Message, maximum_octets: int) -> list[Message]:
    """Split a TEXT into numbered messages of at most `maximum_octets` of text each, in the order to be sent.

    The last part keeps the id and the wish for notifications: it is delivered when all of it is.
    """
    texts = split_text(message.text, maximum_octets, is_numbered=True)
    if len(texts) == 1:
        return [message]
    parts = [
        replace(message, id=f"{message.id}.{number}", text=text, wants_delivered=False, wants_displayed=False)
        for number, text in enumerate(texts[:-1], 1)
    ]
    return [*parts, replace(message, text=texts[-1])]
