"""Calls: one call, two legs; a leg is SIP or Jingle, and SDP is what both speak."""
