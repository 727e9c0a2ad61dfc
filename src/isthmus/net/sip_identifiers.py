"""Fresh tags, Call-IDs and branches (RFC 3261 sections 8.1.1 and 19.3): random, so that nobody can guess them."""

from __future__ import annotations

import secrets

from isthmus.sip.headers import MAGIC_COOKIE


class FreshIdentifiers:
    """Makes identifiers that no other message has or had."""

    def new_tag(self) -> str:
        """Return a fresh From/To tag with 64 random bits."""
        return secrets.token_hex(8)

    def new_call_id(self) -> str:
        """Return a fresh Call-ID with 128 random bits."""
        return secrets.token_hex(16)

    def new_branch(self) -> str:
        """Return a fresh Via branch with 96 random bits."""
        return MAGIC_COOKIE + secrets.token_hex(12)
