"""Pure translation between the realms: addresses, failures, presence, messages."""
