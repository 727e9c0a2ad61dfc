"""What clients say they can do, and when it is believed."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

import pytest

from isthmus.model import Modality
from isthmus.xmpp import capabilities as ours
from isthmus.xmpp.device_capabilities import MAXIMUM_ELEMENTS, DeviceCapabilities, features_of, is_proved

CALLS = (
    "urn:xmpp:jingle:1",
    "urn:xmpp:jingle:apps:rtp:1",
    "urn:xmpp:jingle:apps:rtp:audio",
    "urn:xmpp:jingle:transports:ice-udp:1",
)

# XEP-0115 section 5.3, with two identities and a form.
EXAMPLE = """
<query xmlns='http://jabber.org/protocol/disco#info' node='http://psi-im.org#q07IKJEyjvHSyhy//CH0CxmKi8w='>
  <identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/>
  <identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>
  <feature var='http://jabber.org/protocol/caps'/>
  <feature var='http://jabber.org/protocol/disco#info'/>
  <feature var='http://jabber.org/protocol/disco#items'/>
  <feature var='http://jabber.org/protocol/muc'/>
  <x xmlns='jabber:x:data' type='result'>
    <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>
    <field var='ip_version' type='text-multi'><value>ipv4</value><value>ipv6</value></field>
    <field var='os'><value>Mac</value></field>
    <field var='os_version'><value>10.5.1</value></field>
    <field var='software'><value>Psi</value></field>
    <field var='software_version'><value>0.11</value></field>
  </x>
</query>"""
VER = "q07IKJEyjvHSyhy//CH0CxmKi8w="


def query(*features: str, more: str = "") -> str:
    listed = "".join(f"<feature var='{feature}'/>" for feature in features)
    return f"<query xmlns='http://jabber.org/protocol/disco#info'>{more}{listed}</query>"


def test_the_complex_example_of_xep_0115_is_proved() -> None:
    assert is_proved(fromstring(EXAMPLE), "sha-1", VER)


@pytest.mark.parametrize("change", [("muc", "mud"), ("0.11", "0.12"), ("ipv6", "ipv7"), ("'el'", "'en'")])
def test_a_change_anywhere_is_not_proved(change: tuple[str, str]) -> None:
    assert not is_proved(fromstring(EXAMPLE.replace(*change)), "sha-1", VER)


@pytest.mark.parametrize("algorithm", ["sha-256", "md5", ""])
def test_another_algorithm_proves_nothing(algorithm: str) -> None:
    assert not is_proved(fromstring(EXAMPLE), algorithm, VER)


@pytest.mark.parametrize("doubled", ["<feature var='a'/>", "<identity category='client' type='pc'/>"])
def test_doubles_prove_nothing(doubled: str) -> None:
    """XEP-0115 section 5.4: two answers could share the hash."""
    answer = fromstring(query("b", more=doubled + doubled))
    text = "client/pc//<client/pc//<b<" if "identity" in doubled else "a<a<b<"
    assert not is_proved(answer, "sha-1", ours.verification_string([], text.rstrip("<").split("<")))


def test_a_form_without_a_type_is_left_out() -> None:
    form = "<x xmlns='jabber:x:data'><field var='os'><value>x</value></field></x>"
    assert is_proved(fromstring(query("a", more=form)), "sha-1", ours.verification_string([], ["a"]))


def test_what_we_announce_is_proved_by_what_we_answer() -> None:
    announced = fromstring(ours.capabilities_element(frozenset(Modality)))
    answer = fromstring(ours.disco_info(ours.DEVICE_IDENTITY, ours.device_features(frozenset(Modality))))
    assert is_proved(answer, announced.get("hash", ""), announced.get("ver", ""))
    assert DeviceCapabilities(features_of(answer)).can_see


@pytest.mark.parametrize("missing", CALLS)
def test_a_device_can_be_called_only_with_every_part_of_a_call(missing: str) -> None:
    assert DeviceCapabilities(frozenset(CALLS)).can_call
    assert not DeviceCapabilities(frozenset(CALLS) - {missing}).can_call


def test_an_endless_list_of_features_is_cut() -> None:
    answer = fromstring(query(*(f"f{number}" for number in range(MAXIMUM_ELEMENTS + 50))))
    assert len(features_of(answer)) == MAXIMUM_ELEMENTS
    assert not is_proved(answer, "sha-1", ours.verification_string([], features_of(answer)))
