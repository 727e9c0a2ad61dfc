"""Fresh tags, Call-IDs and branches (RFC 3261 sections 8.1.1 and 19.3): random, so that nobody can guess them."""

from __future__ import annotations

import secrets

from isthmus.sip.headers import MAGIC_COOKIE

# Octets fetched from the system at a time: a call for each identifier costs more than all else that is done to make
# one, and with the store's thread at work it hands over the interpreter lock as well.
_STOCK_OCTETS = 4_096


class FreshIdentifiers:
    """Makes identifiers that no other message has or had."""

    _stock = ""  # random digits, each of which is given away once
    _used = 0

    def new_tag(self) -> str:
        """Return a fresh From/To tag with 64 random bits."""
        return self._digits(16)

    def new_call_id(self) -> str:
        """Return a fresh Call-ID with 128 random bits."""
        return self._digits(32)

    def new_branch(self) -> str:
        """Return a fresh Via branch with 96 random bits."""
        return MAGIC_COOKIE + self._digits(24)

    def _digits(self, count: int) -> str:
        end = self._used + count
        if end > len(self._stock):
            self._stock, self._used, end = secrets.token_hex(_STOCK_OCTETS), 0, count
        digits = self._stock[self._used : end]
        self._used = end
        return digits
