"""Use-cases: what Isthmus does for its users, written against `ports`."""
