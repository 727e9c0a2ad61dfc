"""Isthmus joins a company's SIP domain and the XMPP network under plain addresses on both sides."""

__version__ = "0.1.0"
