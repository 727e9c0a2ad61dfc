"""External Service Discovery (XEP-0215): which STUN and TURN servers there are, and with what credentials."""

from __future__ import annotations

from typing import ClassVar

from slixmpp.xmlstream import ElementBase, register_stanza_plugin

from isthmus.xmpp import namespaces as ns


class Services(ElementBase):
    """A query for services, and its answer.

    .. code-block:: xml

        <services xmlns='urn:xmpp:extdisco:2' type='turn'/>
    """

    name = "services"
    namespace = ns.EXTERNAL_SERVICES
    plugin_attrib = "external_services"
    interfaces: ClassVar[set[str]] = {"type"}


class Credentials(ElementBase):
    """A query for the credentials of one service, and its answer (XEP-0215 section 3.3)."""

    name = "credentials"
    namespace = ns.EXTERNAL_SERVICES
    plugin_attrib = "external_credentials"
    interfaces: ClassVar[set[str]] = set()


class Service(ElementBase):
    """One service; `expires` is a time of XEP-0082."""

    name = "service"
    namespace = ns.EXTERNAL_SERVICES
    plugin_attrib = "service"
    plugin_multi_attrib = "services"
    interfaces: ClassVar[set[str]] = {
        "action",
        "expires",
        "host",
        "name",
        "password",
        "port",
        "restricted",
        "transport",
        "type",
        "username",
    }


register_stanza_plugin(Services, Service, iterable=True)
register_stanza_plugin(Credentials, Service, iterable=True)
