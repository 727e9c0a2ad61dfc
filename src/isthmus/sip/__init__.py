"""SIP, sans I/O: RFC 3261 and friends. Bytes and `now` in; events and bytes out."""
