"""The small grammar that all SIP header fields share: tokens, quoted strings, lists and parameters (RFC 3261 25.1).

Every scan is linear in the length of its input: the regular expressions hold no nested or overlapping repetition.
"""

from __future__ import annotations

import re

from isthmus.errors import SipParseError

Parameters = tuple[tuple[str, str | None], ...]
"""Parameters in the order of the wire: lower-case name, and the value as on the wire or None for a bare name."""

_TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
# What may stand unquoted after "=": token, host or IPv6 reference; anything else that cannot be mistaken for
# structure is let through, because devices put "/", "@" and ":" there.
_PLAIN_VALUE = re.compile(r"[^\s\",;<>]*")
# The everyday form of a whole parameter list, checked in one pass: no blanks, no quotes.
_PLAIN_PARAMETERS = re.compile(r"(?:;[A-Za-z0-9\-.!%*_+`'~]++(?:=[^\s\",;<>]*+)?)*+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_LIST_MARK = re.compile(r'[",<]')
_SEMICOLON_OR_QUOTE = re.compile(r'[";]')
_ESCAPED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_NEEDS_ESCAPE = re.compile(r'["\\\x00-\x08\x0b\x0c\x0e-\x1f\x7f]')
_LINE_BREAK = re.compile(r"[\r\n]+")


def is_token(text: str) -> bool:
    """Tell whether `text` is a `token` (RFC 3261 section 25.1)."""
    return _TOKEN.fullmatch(text) is not None


def quote(text: str) -> str:
    """Return `text` as a quoted-string; line breaks, which no quoted-string can hold, become one space."""
    if "\r" in text or "\n" in text:
        text = _LINE_BREAK.sub(" ", text)
    if _NEEDS_ESCAPE.search(text) is not None:
        text = _NEEDS_ESCAPE.sub(r"\\\g<0>", text)
    return f'"{text}"'


def unquote(text: str) -> str:
    """Return the content of a quoted-string; text that is not quoted is returned as it is."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    inner = text[1:-1]
    return _ESCAPED_PAIR.sub(r"\1", inner) if "\\" in inner else inner


def end_of_quoted(text: str, start: int) -> int:
    """Return the index after the quoted-string that begins at `start`.

    Raises:
        SipParseError: the closing quote is missing.
    """
    match = _QUOTED.match(text, start)
    if match is None:
        raise SipParseError("a quoted string is not closed")
    return match.end()


def split_list(text: str) -> list[str]:
    """Split a header value at its commas, leaving those inside quotes and `<>` alone; empty elements are dropped.

    Raises:
        SipParseError: a quote or angle bracket is not closed.
    """
    if "," not in text:
        stripped = text.strip()
        return [stripped] if stripped else []
    if '"' not in text and "<" not in text:
        pieces = text.split(",")
    else:
        pieces = []
        start = position = 0
        while (mark := _LIST_MARK.search(text, position)) is not None:
            if mark.group() == ",":
                pieces.append(text[start : mark.start()])
                start = position = mark.end()
            elif mark.group() == '"':
                position = end_of_quoted(text, mark.start())
            else:
                position = text.find(">", mark.end()) + 1
                if not position:
                    raise SipParseError("an angle bracket is not closed")
        pieces.append(text[start:])
    return [stripped for piece in pieces if (stripped := piece.strip())]


def _split_parameters(text: str) -> list[str]:
    """Split `;a=b;c` (without its first semicolon) at semicolons outside quotes."""
    if '"' not in text:
        return text.split(";")
    pieces: list[str] = []
    start = position = 0
    while (mark := _SEMICOLON_OR_QUOTE.search(text, position)) is not None:
        if mark.group() == ";":
            pieces.append(text[start : mark.start()])
            start = position = mark.end()
        else:
            position = end_of_quoted(text, mark.start())
    pieces.append(text[start:])
    return pieces


def parse_parameters(text: str) -> Parameters:
    """Read `;name=value;flag`, the parameters after a header value; values stay as on the wire, quotes included.

    Raises:
        SipParseError: text before the first semicolon, an empty parameter, or a malformed name or value.
    """
    if _PLAIN_PARAMETERS.fullmatch(text) is not None:
        if not text:
            return ()
        pieces = [piece.partition("=") for piece in text[1:].split(";")]
        return tuple([(name.lower(), value if equals else None) for name, equals, value in pieces])
    return _parse_spaced_parameters(text.strip())


def _parse_spaced_parameters(text: str) -> Parameters:
    if not text:
        return ()
    if text[0] != ";":
        raise SipParseError("unexpected text before the parameters of a header field")
    parameters: list[tuple[str, str | None]] = []
    for piece in _split_parameters(text[1:]):
        name, equals, value = piece.partition("=")
        name = name.strip()
        if _TOKEN.fullmatch(name) is None:
            raise SipParseError("a header field has an empty or malformed parameter")
        if not equals:
            parameters.append((name.lower(), None))
            continue
        value = value.strip()
        if _PLAIN_VALUE.fullmatch(value) is None and _QUOTED.fullmatch(value) is None:
            raise SipParseError(f"the value of parameter {name!r} is malformed")
        parameters.append((name.lower(), value))
    return tuple(parameters)


def format_parameters(parameters: Parameters) -> str:
    """Return parameters as they are written: `;name=value;flag`."""
    return "".join([f";{name}" if value is None else f";{name}={value}" for name, value in parameters])


def parameter(parameters: Parameters, name: str) -> str | None:
    """Return a parameter's value unquoted: None if absent, "" if it stands there without a value."""
    for candidate, value in parameters:
        if candidate == name:
            return unquote(value) if value else ""
    return None


def replace_parameter(parameters: Parameters, name: str, value: str | None) -> Parameters:
    """Return `parameters` with `name` set to `value` (quoted where it must be), in its old place or at the end."""
    if value is not None and _PLAIN_VALUE.fullmatch(value) is None and _QUOTED.fullmatch(value) is None:
        value = quote(value)
    name = name.lower()
    if not any(candidate == name for candidate, _ in parameters):
        return (*parameters, (name, value))
    return tuple((n, value if n == name else v) for n, v in parameters)


def parse_parameterised(text: str) -> tuple[str, Parameters]:
    """Read a value with parameters: `presence;id=3`, `active;expires=5`, `text/plain;charset="utf-8"`.

    Returns:
        The value before the first semicolon, stripped, and the parameters with their values unquoted.

    Raises:
        SipParseError: a parameter is malformed.
    """
    value, semicolon, rest = text.partition(";")
    if not semicolon:
        return value.strip(), ()
    parameters = parse_parameters(";" + rest)
    return value.strip(), tuple((n, v if v is None else unquote(v)) for n, v in parameters)


def parse_media_type(text: str) -> tuple[str, Parameters]:
    """Read a Content-Type value: the type in lower case, and its parameters unquoted.

    Raises:
        SipParseError: it is not a media type.
    """
    value, parameters = parse_parameterised(text)
    major, slash, minor = value.lower().partition("/")
    if not slash or not is_token(major.strip()) or not is_token(minor.strip()):
        raise SipParseError("a Content-Type is not a media type")
    return f"{major.strip()}/{minor.strip()}", parameters


def parse_number(text: str, limit: int) -> int | None:
    """Read 1*DIGIT; None when it is not that or exceeds `limit` (RFC 4475 section 3.1.2.4: no overflow, ever)."""
    text = text.strip()
    if not text.isascii() or not text.isdigit():
        return None
    if len(text) < 10 and (number := int(text)) <= limit:
        return number
    digits = text.lstrip("0")
    if len(digits) > len(str(limit)):
        return None
    number = int(digits or "0")
    return number if number <= limit else None
