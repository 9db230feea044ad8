"""Scapy on devices: packets handed over either way, and Scapy's own functions on a socket or an interface."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from typing import Any

import pytest
from lab import arrive, depart, frame, open_card
from namespaces import Namespace, needs_tap, tap_name
from scapy.config import conf
from scapy.layers.inet import ICMP, IP, TCP, UDP, ICMPEcho_am
from scapy.layers.l2 import ARP, ARP_am, Dot1Q, Dot3, Ether
from scapy.packet import Raw
from scapy.sendrecv import AsyncSniffer, bridge_and_sniff, sendp, sniff, srp, srp1
from virtio_side import Side

import ixy
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.errors import ConfigurationError, Error, OwnershipError
from ixy.registers import virtio as reg
from ixy.scapy import IxySocket, interface
from ixy.sim.machine import Machine
from ixy.sim.virtio import BackEnd

ETHER = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
QUESTION = ETHER / ARP(psrc="10.0.0.1", hwsrc="02:00:00:00:00:02", pdst="10.0.0.2")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scapy says nothing, and asks nobody."""
    monkeypatch.setattr(conf, "verb", 0)
    monkeypatch.setattr("scapy.layers.l2.getmacbyip", lambda *_, **__: pytest.fail("somebody was asked"))


@pytest.fixture
def pair() -> Generator[tuple[ixy.Device, ixy.Device]]:
    """Two cards on a cable, run by their thread."""
    with ixy.open("sim:left,cable=right") as left, ixy.open("sim:right") as right:
        yield left, right


def answering(socket: IxySocket) -> AsyncSniffer:
    """A thread that says that 10.0.0.2 is at 02:00:00:00:00:99."""
    return socket.am(ARP_am, IP_addr="10.0.0.2", ARP_addr="02:00:00:00:00:99", verbose=0).bg()


# ---------------------------------------------------------------------------------------------------------------------
# Ours as Scapy's


def test_packets_as_scapys(machine: Machine) -> None:
    """With the moment at which they came, to the nanosecond, and their lengths; they stay when ours have gone."""
    packets = [ETHER / IP() / TCP(dport=80) / Raw(bytes(30)), Ether(frame(7, 90))]
    with open_card(machine, metadata=("time",)) as device:
        for packet in packets:
            arrive(machine, bytes(packet))
        with device.rx[0].receive() as batch:
            times = batch.times.tolist()
            first, both = ixy.to_scapy(batch[0]), ixy.to_scapy(batch)
    assert [bytes(packet) for packet in both] == [bytes(packet) for packet in packets]
    assert bytes(first) == bytes(packets[0])
    assert first[TCP].dport == 80
    assert [int(packet.time * 10**9) for packet in both] == times
    assert [packet.wirelen for packet in both] == [len(packet) for packet in packets]


def test_time_without_metadata_is_that_of_the_call() -> None:
    with (
        ixy.open("sim:now-a,cable=now-b,clock=virtual", link_timeout=0) as a,
        ixy.open("sim:now-b,clock=virtual", link_timeout=0) as b,
    ):
        a.tx[0].send_scapy(QUESTION)
        packet = ixy.to_scapy(b.rx[0].receive(timeout=3600)[0])
        assert int(packet.time * 10**9) == ixy.now()


@pytest.mark.parametrize("metadata", [("vlan",), ("vlan", "flags"), ()])
def test_a_tag_that_the_card_took_out_is_put_back(machine: Machine, metadata: tuple[str, ...]) -> None:
    """Also that of VLAN 0 and priority 0, which only the flag tells."""
    numbers = [77, 0] if "flags" in metadata or not metadata else [77]
    packets = [ETHER / Dot1Q(vlan=number) / IP() / UDP() / Raw(bytes(40)) for number in numbers]
    with open_card(machine, metadata=metadata) as device:
        for packet in packets:
            arrive(machine, bytes(packet))
        with device.rx[0].receive() as batch:
            assert [bytes(packet) for packet in ixy.to_scapy(batch)] == [bytes(packet) for packet in packets]


@pytest.mark.once
def test_what_scapy_cannot_dissect_is_raw(machine: Machine) -> None:
    with open_card(machine) as device:
        arrive(machine, frame(1))
        with device.rx[0].receive() as batch:
            batch[0].length = 5
            assert ixy.to_scapy(batch[0]).layers() == [Raw]


@pytest.mark.once
def test_what_is_no_packet_of_ours(machine: Machine) -> None:
    with pytest.raises(TypeError, match="to_scapy takes a packet or a batch, not bytes"):
        ixy.to_scapy(b"x")  # type: ignore[call-overload]
    with open_card(machine) as device:
        arrive(machine, frame(1))
        batch = device.rx[0].receive()
        packet = batch[0]
        batch.free()
        for gone in (packet, batch):
            with pytest.raises(OwnershipError, match="was sent or freed"):
                ixy.to_scapy(gone)


# ---------------------------------------------------------------------------------------------------------------------
# Scapy's on their way out


@pytest.mark.once
def test_packets_lists_generators_and_sets(machine: Machine) -> None:
    """A field of several values stands for several packets; what is short is padded to what Ethernet sends."""
    several = ETHER / IP(src="10.0.0.1", dst="10.0.0.0/30", ttl=(3, 4)) / UDP() / Raw(bytes(30))
    with open_card(machine) as device:
        tx = device.tx[0]
        assert tx.send_scapy(QUESTION) == 1
        assert tx.send_scapy([QUESTION, ETHER / Raw(b"x")]) == 2
        assert tx.send_scapy(ETHER / IP(id=number) / UDP() for number in range(3)) == 3
        assert tx.send_scapy(several) == 8
        assert tx.send_scapy(Dot3(dst=ETHER.dst, src=ETHER.src) / Raw(bytes(50))) == 1
        assert tx.send_scapy([]) == 0
        sent = depart(machine)
    ids = [ETHER / IP(id=number) / UDP() for number in range(3)]
    expected = [QUESTION, QUESTION, ETHER / Raw(b"x"), *ids, *several]
    assert sent[:-1] == [bytes(packet).ljust(60, b"\0") for packet in expected]
    assert sent[-1][12:14] == (50).to_bytes(2)


@pytest.mark.once
def test_addresses_that_are_not_named(machine: Machine) -> None:
    """The source is the device, and the destination everybody, also where Scapy would ask for it."""
    with open_card(machine) as device:
        assert device.tx[0].send_scapy(Ether() / IP(src="10.9.9.1", dst="10.9.9.9") / UDP()) == 1
        device.tx[0].send_scapy(QUESTION)
        assert [data[:12] for data in depart(machine)] == [b"\xff" * 6 + device.mac, bytes(QUESTION)[:12]]


def test_room_is_waited_for(machine: Machine) -> None:
    """More packets than the ring has room for, while another thread takes them."""
    over, taken = threading.Event(), []
    with open_card(machine, ring_size=64, pool_size=128) as device:

        def take() -> None:
            while not over.is_set():
                taken.extend(depart(machine))
                time.sleep(0.001)

        thread = threading.Thread(target=take)
        thread.start()
        try:
            assert device.tx[0].send_scapy((ETHER / IP(id=n) for n in range(300)), timeout=60) == 300
        finally:
            over.set()
            thread.join()
        taken.extend(depart(machine))
    assert [IP(data[14:]).id for data in taken] == [*range(300)]


@pytest.mark.once
def test_how_many_were_sent_if_there_is_no_room(machine: Machine) -> None:
    """Of a generator one packet more was taken, and no other."""
    packets = iter([ETHER / IP(id=number) for number in range(100)])
    with open_card(machine, ring_size=64, pool_size=128) as device:
        assert device.tx[0].send_scapy(packets, timeout=0) == 63
        assert next(packets).id == 64


@pytest.mark.once
@pytest.mark.parametrize(
    ("packet", "error", "words"),
    [
        (IP() / UDP(), TypeError, "packet 2: IP without an Ethernet header: write Ether\\(\\) before it"),
        (b"bytes", TypeError, "packet 2: b'bytes' is no packet"),
        (ETHER / Raw(bytes(2035)), ConfigurationError, "packet 2: 2049 bytes, and a buffer has 2048"),
    ],
)
def test_what_cannot_be_sent(machine: Machine, packet: Any, error: type[Exception], words: str) -> None:
    """What is before it was sent."""
    with open_card(machine) as device:
        with pytest.raises(error, match=f"send_scapy: {words}"):
            device.tx[0].send_scapy([QUESTION, packet, QUESTION])
        assert depart(machine) == [bytes(QUESTION).ljust(60, b"\0")]


@pytest.mark.once
def test_not_even_several(machine: Machine) -> None:
    with open_card(machine) as device, pytest.raises(TypeError, match="send_scapy takes packets of Scapy, not 7"):
        device.tx[0].send_scapy(7)


def test_through_a_ring_between_threads() -> None:
    """Which has no buffers of its own."""
    with ixy.Ring(32) as ring, ixy.Mempool(64) as pool:
        with pytest.raises(ConfigurationError, match=r"ring \d+ has no buffers of its own: name a pool"):
            ring.tx.send_scapy(QUESTION)
        assert ring.tx.send_scapy(QUESTION, pool=pool) == 1
        with ring.rx.receive() as batch:
            assert bytes(batch[0]) == bytes(QUESTION).ljust(60, b"\0")


@pytest.mark.once
@pytest.mark.parametrize(
    ("use", "who"),
    [
        ("ixy.to_scapy(batch)", "ixy.to_scapy"),
        ("ring.tx.send_scapy([], pool=pool)", "send_scapy"),
        ("import ixy.scapy", "ixy.scapy"),
    ],
)
def test_without_scapy(use: str, who: str) -> None:
    """Also `import ixy` and all its names are there."""
    program = f"""
import sys; sys.modules["scapy"] = None
from ixy import *
import ixy
with Mempool(4) as pool, Ring(32) as ring, pool.allocate(1) as batch:
    {use}
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stderr.endswith(f"ConfigurationError: {who} needs Scapy; run: pip install 'ixy[scapy]'\n")


# ---------------------------------------------------------------------------------------------------------------------
# Scapy's functions


def test_a_question_is_answered(pair: tuple[ixy.Device, ixy.Device]) -> None:
    """By an answering machine in another thread, through `sr1`, `sr`, and `srp1` and `srp` on an interface."""
    left, right = pair
    with IxySocket(left) as here, IxySocket(right, filter="arp") as there:
        machine = answering(there)
        answers = [here.sr1(QUESTION, timeout=60), here.sr(QUESTION, timeout=60)[0][0].answer]
        answers += [
            srp1(QUESTION, iface=interface(left), timeout=60),
            srp(QUESTION, iface=interface(left))[0][0].answer,
        ]
        machine.stop()
    assert [answer[ARP].hwsrc for answer in answers] == ["02:00:00:00:00:99"] * 4
    assert answers[0].wirelen == 60
    assert not left.closed


def test_no_answer_in_time_costs_nothing(pair: tuple[ixy.Device, ixy.Device]) -> None:
    """Who waits sleeps: ten times less of the processor than time that passes."""
    with IxySocket(pair[0]) as socket:
        socket.sr1(QUESTION, timeout=0.01)
        start, spent = time.monotonic(), time.thread_time()
        assert socket.sr1(QUESTION, timeout=0.5) is None
        assert time.monotonic() - start >= 0.5
        assert time.thread_time() - spent < 0.05


def test_sniffing_with_filter_in_another_thread(pair: tuple[ixy.Device, ixy.Device]) -> None:
    """What is filtered away is not seen, and all else, also what had come before."""
    left, right = pair
    ready = threading.Event()
    with IxySocket(left, filter="udp dst portrange 10-19") as socket:
        sniffer = AsyncSniffer(opened_socket=socket, count=10, started_callback=ready.set)
        sniffer.start()
        assert ready.wait(60)
        right.tx[0].send_scapy(ETHER / IP() / UDP(dport=number) for number in range(40))
        sniffer.join(60)
    assert [packet[UDP].dport for packet in sniffer.results] == [*range(10, 20)]


@pytest.mark.once
def test_sniffing_on_an_interface(pair: tuple[ixy.Device, ixy.Device]) -> None:
    left, right = pair
    sendp([QUESTION, ETHER / IP() / UDP(dport=5)], iface=interface(right))
    packets = sniff(iface=interface(left), filter="udp", count=1, timeout=60)
    assert packets[0][UDP].dport == 5


@pytest.mark.once
def test_a_bridge_of_two_sockets() -> None:
    """left ↔ a, b ↔ right: what Scapy forwards from a to b is changed on its way."""
    names = [("bridge-left", "bridge-a"), ("bridge-b", "bridge-right")]
    with (
        ixy.open(f"sim:{names[0][0]},cable={names[0][1]}") as left,
        ixy.open(f"sim:{names[0][1]}") as a,
        ixy.open(f"sim:{names[1][0]},cable={names[1][1]}") as b,
        ixy.open(f"sim:{names[1][1]}") as right,
        IxySocket(a) as one,
        IxySocket(b) as other,
    ):
        left.tx[0].send_scapy(ETHER / IP() / UDP(dport=1) / Raw(bytes(30)))
        right.tx[0].send_scapy(ETHER / IP() / UDP(dport=2) / Raw(bytes(30)))

        def change(packet: Any) -> Any:
            packet[UDP].dport = 7
            return packet

        bridge_and_sniff(one, other, xfrm12=change, count=2, timeout=60)
        got = [ixy.to_scapy(device.rx[0].receive(timeout=60)[0])[UDP].dport for device in (right, left)]
    assert got == [7, 2]


def test_a_device_that_is_closed_ends_the_sniffing(pair: tuple[ixy.Device, ixy.Device]) -> None:
    left, _ = pair
    ready = threading.Event()
    socket = IxySocket(left)
    sniffer = AsyncSniffer(opened_socket=socket, started_callback=ready.set)
    sniffer.start()
    assert ready.wait(60)
    left.close()
    sniffer.join(60)
    assert len(sniffer.results) == 0
    with pytest.raises(EOFError):
        socket.recv()


@pytest.mark.once
def test_by_address_the_socket_owns_the_device() -> None:
    with IxySocket("sim:own,cable=other") as socket:
        assert not socket.device.closed
    assert socket.device.closed


@pytest.mark.once
def test_queues_that_are_not_there(machine: Machine) -> None:
    with open_card(machine, rx_queues=2) as device, pytest.raises(ConfigurationError, match="sim:a: queue 1: 0 to 0"):
        IxySocket(device, queue=1)
    with open_card(machine, rx_queues=2, tx_queues=2) as device, IxySocket(device, queue=1) as socket:
        device.set_rss_table([1])
        arrive(machine, bytes(QUESTION))
        device.rx[0].receive()
        socket.send(QUESTION)
        assert depart(machine, queue=1) == [bytes(QUESTION).ljust(60, b"\0")]


@pytest.mark.once
def test_a_ring_without_room(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_card(machine, ring_size=64) as device, IxySocket(device) as socket:
        monkeypatch.setattr("ixy.clock.LOOK_AGAIN", 2.0)
        for _ in range(63):
            socket.send(QUESTION)
        with pytest.raises(Error, match=r"sim:a tx\[0\] takes no packet: its ring is full"):
            socket.send(QUESTION)


# ---------------------------------------------------------------------------------------------------------------------
# On other devices


def test_by_a_virtual_clock() -> None:
    """A frame is there after the cable's 50 microseconds; a wait with a timeout takes as long by both clocks, and one
    without an end that would have none is refused."""
    with (
        ixy.open("sim:virtual-a,cable=virtual-b,delay=50us,clock=virtual", link_timeout=0) as a,
        ixy.open("sim:virtual-b,clock=virtual", link_timeout=0, metadata=("time",)) as b,
        IxySocket(a) as here,
        IxySocket(b) as there,
    ):
        begun = ixy.now()
        here.send(QUESTION)
        packet = there.recv()
        assert 50_000 <= ixy.now() - begun <= 60_000
        assert int(packet.time * 10**9) == ixy.now()
        there.send(ETHER / ARP(op="is-at", psrc="10.0.0.2", hwsrc="02:00:00:00:00:99", pdst="10.0.0.1"))
        assert here.sr1(QUESTION, timeout=5)[ARP].hwsrc == "02:00:00:00:00:99"
        start, begun = time.monotonic(), ixy.now()
        assert here.sr(QUESTION, timeout=0.2)[0].res == []
        assert time.monotonic() - start >= 0.2
        assert 0.19 <= (ixy.now() - begun) / 10**9 <= 0.5
        with pytest.raises(Error, match="nothing is under way"):
            here.recv()


def test_a_minute_of_a_virtual_clock_is_over_at_once() -> None:
    with ixy.open("sim:minute,gen=60,rate=1,count=61,clock=virtual", link_timeout=0) as device:
        with IxySocket(device) as socket:
            assert len(socket.sniff(count=61)) == 61
        assert ixy.now() >= 60 * 10**9


def test_on_virtio() -> None:
    """A device of another driver, of which a model plays the other side."""
    back_end = BackEnd("scapy", 1 << reg.VERSION_1 | 1 << reg.MAC | 1 << reg.STATUS)
    with ixy.Device(VirtioNet(InProcess(back_end), ring_size=16, pool_size=80)) as device, IxySocket(device) as socket:
        rx, tx = Side(back_end.queues[0]), Side(back_end.queues[1])
        header = bytes(back_end.queues[0].header)
        assert socket.send(QUESTION) == len(bytes(QUESTION))
        sent = tx.look()[0]
        assert tx.read(sent)[len(header) :] == bytes(QUESTION).ljust(60, b"\0")
        buffer = rx.look()[0]
        rx.write(buffer, header + bytes(QUESTION))
        rx.use(buffer.id, len(header) + len(QUESTION))
        assert bytes(socket.sniff(count=1, timeout=60)[0]) == bytes(QUESTION)
        assert socket.sniff(timeout=0.01).res == []


class _Mute(IxySocket):
    """A socket on a bus that delivers no interrupts."""

    def fileno(self) -> int:
        raise ixy.errors.UnsupportedDevice("no interrupts")


@pytest.mark.once
def test_without_interrupts_it_looks_each_millisecond(pair: tuple[ixy.Device, ixy.Device]) -> None:
    left, right = pair
    with _Mute(left) as here, IxySocket(right) as there:
        machine = answering(there)
        assert here.sr1(QUESTION, timeout=60)[ARP].hwsrc == "02:00:00:00:00:99"
        machine.stop()


@needs_tap
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ping"), reason="needs root, and ping")
def test_the_kernel_answers_and_is_answered() -> None:
    """Through a TAP: Linux answers ARP and pings that Scapy sends, and its ping is answered by Scapy."""
    with ixy.open(f"sim:scapy-tap,tap={tap_name('s')}") as device:
        space = Namespace(tap_name("n"))
        try:
            space.take(tap_name("s"), ["10.9.8.1/24"])
            device.wait_for_link(60)
            mac = device.mac.hex(":")
            with IxySocket(device, filter="arp or icmp") as socket:
                asked = Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=mac, psrc="10.9.8.2", pdst="10.9.8.1")
                assert socket.sr1(asked, timeout=60)[ARP].hwsrc == space.mac
                threads = [
                    socket.am(ARP_am, IP_addr="10.9.8.2", ARP_addr=mac, verbose=0),
                    socket.am(ICMPEcho_am, verbose=0),
                ]

                def answer(packet: Any) -> None:
                    for each in threads:
                        each.optsend = each.defoptsend
                        each.reply(packet)

                sniffer = AsyncSniffer(opened_socket=socket, prn=answer, store=False)
                sniffer.start()
                assert " 0% packet loss" in space.run("ping", "-c", "3", "-i", "0.2", "10.9.8.2")
                sniffer.stop()
                ping = Ether(dst=space.mac) / IP(src="10.9.8.2", dst="10.9.8.1") / ICMP(id=9) / Raw(b"ixy")
                assert socket.sr1(ping, timeout=60)[Raw].load.startswith(b"ixy")
        finally:
            space.close()
