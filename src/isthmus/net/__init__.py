"""Adapters to the network behind `ports`: SIP transports, the XMPP component, DNS, Prosody."""
