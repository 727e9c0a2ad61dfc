"""The XMPP end of calls: the door, whom to ring, and sessions (XEP-0166) as legs."""
