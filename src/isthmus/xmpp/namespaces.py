"""Names of XML namespaces on the XMPP side, one constant per specification."""

COMPONENT = "jabber:component:accept"  # XEP-0114: what stanzas on a component stream are in
CLIENT = "jabber:client"
STANZA_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas"  # RFC 6120 section 8.3

CAPS = "http://jabber.org/protocol/caps"  # XEP-0115
CARBONS = "urn:xmpp:carbons:2"  # XEP-0280
CHAT_MARKERS = "urn:xmpp:chat-markers:0"  # XEP-0333
CHAT_STATES = "http://jabber.org/protocol/chatstates"  # XEP-0085
CONFERENCE_INVITE = "jabber:x:conference"  # XEP-0249
CORRECTION = "urn:xmpp:message-correct:0"  # XEP-0308
DELAY = "urn:xmpp:delay"  # XEP-0203
EXPLICIT_ENCRYPTION = "urn:xmpp:eme:0"  # XEP-0380
FALLBACK = "urn:xmpp:fallback:0"  # XEP-0428
FASTEN = "urn:xmpp:fasten:0"  # XEP-0422, carrier of XEP-0424 before version 0.4
FORWARD = "urn:xmpp:forward:0"  # XEP-0297
HINTS = "urn:xmpp:hints"  # XEP-0334
IDLE = "urn:xmpp:idle:1"  # XEP-0319
MAM = "urn:xmpp:mam:2"  # XEP-0313
NICK = "http://jabber.org/protocol/nick"  # XEP-0172
OMEMO = "urn:xmpp:omemo:2"  # XEP-0384
OMEMO_1 = "urn:xmpp:omemo:1"
OMEMO_LEGACY = "eu.siacs.conversations.axolotl"  # XEP-0384 version 0.3, what clients speak
OOB = "jabber:x:oob"  # XEP-0066
OPENPGP = "urn:xmpp:openpgp:0"  # XEP-0373 (OX)
OPENPGP_LEGACY = "jabber:x:encrypted"  # XEP-0027
REACTIONS = "urn:xmpp:reactions:0"  # XEP-0444
RECEIPTS = "urn:xmpp:receipts"  # XEP-0184
REPLY = "urn:xmpp:reply:0"  # XEP-0461
RETRACT = "urn:xmpp:message-retract:1"  # XEP-0424
RETRACT_0 = "urn:xmpp:message-retract:0"
SFS = "urn:xmpp:sfs:0"  # XEP-0447
URL_DATA = "http://jabber.org/protocol/url-data"  # XEP-0103
VCARD = "vcard-temp"  # XEP-0054
VCARD_UPDATE = "vcard-temp:x:update"  # XEP-0153

EXTERNAL_SERVICES = "urn:xmpp:extdisco:2"  # XEP-0215
JINGLE = "urn:xmpp:jingle:1"  # XEP-0166
JINGLE_DTLS = "urn:xmpp:jingle:apps:dtls:0"  # XEP-0320
JINGLE_DTMF = "urn:xmpp:jingle:dtmf:0"  # XEP-0181
JINGLE_ERRORS = "urn:xmpp:jingle:errors:1"  # XEP-0166 section 10
JINGLE_GROUPING = "urn:xmpp:jingle:apps:grouping:0"  # XEP-0338
JINGLE_HEADER_EXTENSIONS = "urn:xmpp:jingle:apps:rtp:rtp-hdrext:0"  # XEP-0294
JINGLE_ICE_UDP = "urn:xmpp:jingle:transports:ice-udp:1"  # XEP-0176
JINGLE_MESSAGE = "urn:xmpp:jingle-message:0"  # XEP-0353; its registry section has a slip, clients speak this one
JINGLE_RTCP_FEEDBACK = "urn:xmpp:jingle:apps:rtp:rtcp-fb:0"  # XEP-0293
JINGLE_RTP = "urn:xmpp:jingle:apps:rtp:1"  # XEP-0167
JINGLE_RTP_AUDIO = "urn:xmpp:jingle:apps:rtp:audio"  # features of XEP-0167 section 10.1
JINGLE_RTP_INFO = "urn:xmpp:jingle:apps:rtp:info:1"  # XEP-0167 section 8
JINGLE_RTP_VIDEO = "urn:xmpp:jingle:apps:rtp:video"
JINGLE_SOURCES = "urn:xmpp:jingle:apps:rtp:ssma:0"  # XEP-0339
JINGLE_TRANSFER = "urn:xmpp:jingle:transfer:0"  # XEP-0251
SDP_GROUPING = "urn:ietf:rfc:5888"  # the feature of XEP-0338
SDP_SOURCES = "urn:ietf:rfc:5576"  # the feature of XEP-0339

HOP = "urn:isthmus:hop:0"  # ours: how many crossings a stanza has behind it
PRESENCE_STATE = "urn:isthmus:presence:0"  # ours: the canonical state, so that two crossings lose nothing
