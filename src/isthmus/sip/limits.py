"""Sizes a peer may reach, each with its reason. RFC 3261 sets none; without them one peer can exhaust us."""

MAXIMUM_LINE = 8 * 1024
"""Octets of one header line. A Record-Route chain or an Identity token stays under 4 KiB; HTTP servers stop at 8."""

MAXIMUM_HEADER_LINES = 256
"""Header lines of one message. Max-Forwards allows 70 Vias; the longest message of RFC 4475 has about 45 lines."""

MAXIMUM_DATAGRAM = 65_535
"""Octets of one UDP datagram: what the length field of UDP can say (RFC 768)."""

MAXIMUM_STREAM_MESSAGE = 256 * 1024
"""Octets of one message on a connection or WebSocket. A conference roster or RLMI body of some hundred entries
fits; a connection can make us hold no more than this."""

MAXIMUM_MIME_NESTING = 4
"""Depth of multipart in multipart. signed(mixed(CPIM(text))) is three; deeper nesting is an attack on the stack."""

MAXIMUM_MIME_PARTS = 256
"""Parts of one multipart body. An RLMI notification carries one part per contact of a resource list."""
