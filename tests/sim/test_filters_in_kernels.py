"""Filters in tcpdump's language within kernels: the same compiled, interpreted and checked."""

from __future__ import annotations

from types import ModuleType

import pytest
from lab import arrive, depart, open_card
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

import ixy
from ixy.sim.machine import Machine
from ixy.unsafe.filters import accepts_packet

STATION = "02:69:78:79:00:01"
DNS = bytes(Ether(dst=STATION) / IP(src="10.0.0.1") / UDP(sport=1000, dport=53) / (b"question" * 4))
WEB = bytes(Ether(dst=STATION) / IP(src="10.0.0.2") / TCP(sport=1000, dport=80) / (b"request" * 4))
PACKETS = [DNS, WEB, WEB, DNS, DNS, WEB]

dns = ixy.filter("udp port 53")
named = ModuleType("named")
named.web = ixy.filter("tcp port 80")  # type: ignore[attr-defined]


def is_web(packet):
    return named.web(packet)


def forwarded(machine: Machine, kernel, record=None) -> list[bytes]:
    """What a kernel lets through of PACKETS."""
    with open_card(machine) as device:
        path = ixy.Path(device.rx[0], device.tx[0], kernel, record, batch=32)
        for packet in PACKETS:
            arrive(machine, packet)
        path.run(2 * len(PACKETS))
        return depart(machine)


def test_in_a_kernel(machine):
    """By a global name."""

    @ixy.kernel
    def only_dns(packet: ixy.Packet) -> int:
        if dns(packet):
            return ixy.FORWARD
        return ixy.DROP

    assert forwarded(machine, only_dns) == [DNS] * 3


def test_in_a_helper_and_as_a_verdict(machine):
    """In a plain function that a kernel calls, by the name of a module; true forwards."""

    @ixy.kernel
    def only_web(packet: ixy.Packet) -> int:
        return is_web(packet)

    assert forwarded(machine, only_web) == [WEB] * 3


def test_two_filters_of_one_source_are_two(machine):
    """Kernels that differ in nothing but the filter that they close over: neither is taken for the other."""

    def passing(chosen):
        @ixy.kernel
        def only(packet: ixy.Packet) -> int:
            return chosen(packet)

        return only

    assert forwarded(machine, passing(ixy.filter("tcp"))) == [WEB] * 3
    assert forwarded(machine, passing(ixy.filter("udp"))) == [DNS] * 3


def test_the_packet_as_it_is_now(machine):
    """A filter sees what the kernel has made of the packet, its length too."""
    short = ixy.filter("less 50 and dst port 54")

    @ixy.kernel
    def change(packet: ixy.Packet) -> int:
        if not dns(packet):
            return ixy.DROP
        packet.udp.dport = 54
        packet.length = 50
        return short(packet) and not dns(packet)

    assert len(forwarded(machine, change)) == 3


def test_of_all_packets_of_a_batch(machine):
    @ixy.batch_kernel
    def only_dns(packets: ixy.Batch) -> None:
        for i in range(len(packets)):
            packets.verdicts[i] = dns(packets[i])

    assert forwarded(machine, only_dns) == [DNS] * 3


class Chosen(ixy.Record):
    address: int


@ixy.kernel
def by_address(packet: ixy.Packet, chosen: Chosen) -> int:
    return accepts_packet(chosen.address, packet)


def test_by_address(machine):
    """One kernel for all filters, which are data; 0 is none."""
    for expression, expected in (("udp", [DNS] * 3), ("tcp", [WEB] * 3), (None, PACKETS)):
        chosen = Chosen()
        chosen.address = ixy.filter(expression).address if expression else 0
        assert forwarded(machine, by_address, chosen) == expected


def test_what_is_no_packet(machine):
    @ixy.kernel
    def wrong(packet: ixy.Packet) -> int:
        return dns(packet.length)

    with pytest.raises((ixy.KernelError, TypeError), match="a filter takes a packet"):
        forwarded(machine, wrong)


def test_compiled_within(machine):
    """A kernel cannot compile a filter for each packet."""

    @ixy.kernel
    def slow(packet: ixy.Packet) -> int:
        return ixy.filter("udp")(packet)

    with pytest.raises(ixy.KernelError, match=r"'ixy.filter' compiles a filter: define it outside"):
        forwarded(machine, slow)
