"""What a tester's port announces and answers, beside what Scapy makes of the same words."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from ixy.apps.neighbours import Neighbours
from ixy.apps.streams import Choice, Stream

pytestmark = pytest.mark.once

OURS, THEIRS, PORT = "02:00:00:00:00:01", "02:00:00:00:00:99", "02:00:00:00:00:aa"
V4 = bytes(Ether(src=OURS, dst=THEIRS) / IP(src="10.1.0.1", dst="10.2.0.1") / UDP() / bytes(40))
V6 = bytes(Ether(src=OURS, dst=THEIRS) / Dot1Q(vlan=7) / IPv6(src="fd00::1", dst="fd00:1::1") / UDP() / bytes(40))
PLAIN = bytes(Ether(src=OURS, dst=THEIRS, type=0x88B5) / bytes(46))


def advertisement(mac: str, to: str, dst: str, solicited: bool) -> Ether:
    head = Ether(src=mac, dst=to) / Dot1Q(vlan=7) / IPv6(src="fd00::1", dst=dst)
    return head / ICMPv6ND_NA(R=0, S=int(solicited), O=1, tgt="fd00::1") / ICMPv6NDOptDstLLAddr(lladdr=mac)


def test_announcements() -> None:
    """Of IPv4 by ARP, of IPv6 by an advertisement, in the VLAN of the packets; of neither by any frame; each once."""
    four, six, plain = Neighbours([Stream("s", [V4, V4, V6, PLAIN])]).announcements()
    asked = ARP(op=1, hwsrc=OURS, psrc="10.1.0.1", hwdst="00:00:00:00:00:00", pdst="10.1.0.1")
    assert four == bytes(Ether(src=OURS, dst="ff:ff:ff:ff:ff:ff") / asked)
    assert six == bytes(advertisement(OURS, "33:33:00:00:00:01", "ff02::1", solicited=False))
    assert plain[:12] == b"\xff" * 6 + bytes.fromhex(OURS.replace(":", ""))


def test_announcements_of_many() -> None:
    """Each Ethernet address that packets come from, or the port's alone if that is where all are to be reached."""
    fields = {"eth.src": Choice(range(5, 10_000)), "ipv4.src": Choice(range(10_000))}
    stream = Stream("s", [V4], fields)
    frames = Neighbours([stream]).announcements()
    assert [int.from_bytes(frame[6:12]) for frame in frames] == list(range(5, 5 + 4096))
    (frame,) = Neighbours([stream], bytes.fromhex(PORT.replace(":", ""))).announcements()
    assert Ether(frame).src == Ether(frame)[ARP].hwsrc == PORT


def test_a_request_is_answered() -> None:
    """To who has asked, for addresses that packets come from, and for no others."""
    neighbours = Neighbours([Stream("s", [V4], {"ipv4.src": Choice(range(0x0A010000, 0x0A010100))})])

    def asked(target: str) -> bytes:
        return bytes(
            Ether(src=THEIRS, dst="ff:ff:ff:ff:ff:ff")
            / Dot1Q(vlan=3)
            / ARP(hwsrc=THEIRS, psrc="10.1.0.254", pdst=target)
        )

    reply = ARP(op=2, hwsrc=OURS, psrc="10.1.0.77", hwdst=THEIRS, pdst="10.1.0.254")
    expected = bytes(Ether(src=OURS, dst=THEIRS) / Dot1Q(vlan=3) / reply)
    assert neighbours.answer(asked("10.1.0.77")) == expected
    assert neighbours.answer(asked("10.1.1.1")) is None
    assert neighbours.answer(expected) is None


def test_a_solicitation_is_answered() -> None:
    """With flags that say that it was asked; whoever has no address yet hears it with all others."""
    neighbours = Neighbours([Stream("s", [V6])])

    def asked(source: str, target: str) -> bytes:
        return bytes(
            Ether(src=THEIRS) / Dot1Q(vlan=7) / IPv6(src=source, dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt=target)
        )

    assert neighbours.answer(asked("fe80::9", "fd00::1")) == bytes(
        advertisement(OURS, THEIRS, "fe80::9", solicited=True)
    )
    everybody = advertisement(OURS, "33:33:00:00:00:01", "ff02::1", solicited=False)
    assert neighbours.answer(asked("::", "fd00::1")) == bytes(everybody)
    assert neighbours.answer(asked("fe80::9", "fd00::2")) is None


@pytest.mark.parametrize("size", range(60))
def test_what_is_cut_asks_nothing(size: int) -> None:
    request = bytes(Ether(src=THEIRS, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.1.0.254", pdst="10.1.0.1"))
    answered = Neighbours([Stream("s", [V4])]).answer(request[:size]) is not None
    assert answered == (size >= len(request))
