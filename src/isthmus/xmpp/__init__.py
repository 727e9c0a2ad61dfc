"""XMPP wire forms: stanza writing, names, slixmpp plug-ins."""
