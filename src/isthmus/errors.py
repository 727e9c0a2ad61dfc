"""Every error Isthmus raises, in one tree.

Two families, after h11: `PeerError` means *they* broke a rule and says how to answer them; `LocalError` means
*we* (or our surroundings: disk, network, configuration) cannot go on, and says what the operator can do.
"""


class IsthmusError(Exception):
    """Root of the tree. `str(error)` is a sentence fit for an administrator."""


class PeerError(IsthmusError):
    """The other side sent something it must not.

    Attributes:
        status: SIP status code to answer with; 0 means "drop silently".
        condition: RFC 6120 section 8.3.3 stanza error condition to answer with.
    """

    status = 400
    condition = "bad-request"

    def __init__(self, text: str, *, status: int | None = None, condition: str | None = None) -> None:
        super().__init__(text)
        if status is not None:
            self.status = status
        if condition is not None:
            self.condition = condition


class AddressError(PeerError):
    """An address that has no counterpart in the other realm (RFC 7247 section 6)."""

    status = 404
    condition = "jid-malformed"


class SipParseError(PeerError):
    """Bytes that are not a SIP message we can accept (RFC 3261 section 25, RFC 4475)."""


class PayloadError(PeerError):
    """A body (PIDF, CPIM, IMDN, isComposing, stanza child) that does not follow its format."""


class LocalError(IsthmusError):
    """Something on our side failed; `exit_code` is what a command ends with (sysexits.h)."""

    exit_code = 70


class ConfigurationError(LocalError):
    """The configuration cannot be used; the text names the setting and the remedy."""

    exit_code = 78


class OperationError(LocalError):
    """An administrator asked for something that cannot be done; the text says what to do instead (EX_USAGE)."""

    exit_code = 64


class UnknownSubjectError(OperationError):
    """The user, contact, domain or setting that was named does not exist (EX_NOUSER)."""

    exit_code = 67


class ServerNotRunningError(LocalError):
    """The operation needs a running server and none answers (EX_UNAVAILABLE)."""

    exit_code = 69


class StoreError(LocalError):
    """The store cannot keep a promise now (disk full, locked, corrupt): nothing may be acknowledged."""

    exit_code = 74


class TransportError(LocalError):
    """A connection or socket failed, or a next hop cannot be resolved or reached."""

    exit_code = 69


class RequestTimeoutError(TransportError):
    """A SIP request got no final response within 64*T1 (RFC 3261 section 17.1), or a stanza none in time."""


class LinkDownError(TransportError):
    """The XMPP component stream is not connected; stanzas must stay in the journal."""


class RelayError(TransportError):
    """No media relay answers, or it refused an operation; the text is the relay's own where it gave one."""
