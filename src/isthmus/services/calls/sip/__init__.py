"""The SIP end of calls: the door, whom to ring, and the two kinds of legs."""
