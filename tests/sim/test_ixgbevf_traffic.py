"""Our driver on virtual functions of a simulated card: packets between them and the wire, in its queues, by interrupts.

The physical function's driver is the model's own (`ixy.sim.physical`).
"""

from __future__ import annotations

import random
import select
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import dpkt
import pytest
from lab import BROADCAST, accounted, batch_of, frame, memory_files, number_of, receive_all, until
from toeplitz import toeplitz

import ixy
from ixy import Flags
from ixy.device import Device
from ixy.errors import Error, UnsupportedDevice
from ixy.packets.mempool import Mempool
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine

CRC = 4


class Net:
    """Functions 0 and 1 of card a, whose cable leads to card b."""

    def __init__(self, *, stepped: bool = True, options: str = ",spoof=off", more: str = "", **shape: object) -> None:
        self.machine = Machine(stepped=stepped)
        self.pool = Mempool(1024)
        self._stack = ExitStack()
        self._stack.callback(self.pool.release)
        self.first = self._open(f"sim:a.vf0,vfs=2,cable=b{more}{options}", **shape)
        self.second = self._open("sim:a.vf1,spoof=off")
        self.wire = self._open("sim:b")

    def _open(self, address: str, **shape: object) -> Device:
        return self._stack.enter_context(
            ixy.open(address, sim=self.machine, link_timeout=0, **shape)  # type: ignore[arg-type]
        )

    def send(self, device: Device, *frames: bytes) -> None:
        assert device.tx[0].send(batch_of(self.pool, frames)) == len(frames)
        if self.machine._stepped:
            self.machine.step(8)

    def received(self, device: Device) -> list[int]:
        """Numbers of the frames that came, in all queues."""
        return [number_of(data) for queue in range(len(device.rx)) for data in receive_all(device, queue=queue)]

    def close(self) -> None:
        self._stack.close()


Make = Callable[..., Net]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes nets that are closed at the end, if not before."""
    with ExitStack() as stack:

        def make(**options: object) -> Net:
            net = Net(**options)  # type: ignore[arg-type]
            stack.callback(net.close)
            return net

        yield make


@pytest.fixture
def net(make: Make) -> Net:
    return make()


def counted(device: Device) -> tuple[int, int, int, int]:
    stats = device.stats()
    return stats.rx_packets, stats.rx_bytes, stats.tx_packets, stats.tx_bytes


# ---------------------------------------------------------------------------------------------------------------------
# Where packets go


def test_between_functions_and_the_wire(net: Net) -> None:
    """What is for the other function goes there and not onto the wire; a broadcast goes to both."""
    a, b, wire = net.first, net.second, net.wire
    assert a.driver == b.driver == "ixgbevf"
    assert a.link == b.link == (True, 10_000)
    net.send(a, frame(1, 60, b.mac), frame(2, 60, wire.mac), frame(3, 100, BROADCAST))
    assert (net.received(a), net.received(b), net.received(wire)) == ([], [1, 3], [2, 3])
    net.send(wire, frame(4, 60, b.mac), frame(5, 1514, a.mac), frame(6, 60, BROADCAST))
    assert (net.received(a), net.received(b), net.received(wire)) == ([5, 6], [4, 6], [])
    assert counted(a) == (2, 1514 + 60 + 2 * CRC, 3, 60 + 60 + 100 + 3 * CRC)
    assert counted(b) == (4, 60 + 100 + 60 + 60 + 4 * CRC, 0, 0)
    assert a.xstats()["VFGPTC"] == 3
    assert b.xstats()["VFGPRC"] == 4


def test_functions_of_an_x540(make: Make) -> None:
    net = make(more=",card=x540")
    assert net.first.info.model == "X540 virtual function"
    net.send(net.wire, frame(1, 60, net.first.mac))
    net.send(net.first, frame(2, 60, net.wire.mac))
    assert (net.received(net.first), net.received(net.wire)) == ([1], [2])


def test_by_a_virtual_clock() -> None:
    """Nothing of the mailbox waits for a clock that only packets and polls move."""
    with ixy.open("sim:a.vf0,vfs=1,gen=60,rate=1e6,count=10,clock=virtual", sim=Machine()) as device:
        assert device.link.up
        device.set_vlan_filter(7, True)


def test_filters_of_addresses(net: Net) -> None:
    """A stranger's frame stays out; a station and a group come in once they are asked for."""
    stranger, group = bytes.fromhex("021111111111"), bytes.fromhex("01005e0a0b0c")
    frames = [frame(1, 60, stranger), frame(2, 60, group), frame(3, 60, net.first.mac)]
    net.send(net.wire, *frames)
    assert net.received(net.first) == [3]
    net.first.set_mac_filter([group])
    net.send(net.wire, *frames)
    assert net.received(net.first) == [2, 3]


def test_trusted_function_changes_its_address(make: Make) -> None:
    net = make(options=",trust=on")
    new = bytes.fromhex("0299aabbccdd")
    net.first.mac = new
    net.send(net.wire, frame(1, 60, new))
    assert net.received(net.first) == [1]


def tagged(data: bytes, vlan: int) -> bytes:
    return data[:12] + struct.pack(">HH", 0x8100, vlan) + data[12:]


def test_vlans(make: Make) -> None:
    """Without a filter, what has no tag; with one, that VLAN too, whose tag is told beside the packet."""
    net = make(metadata=("vlan", "flags"))
    a, wire = net.first, net.wire
    net.send(wire, frame(1, 60, a.mac), tagged(frame(2, 60, a.mac), 9))
    assert net.received(a) == [1]
    a.set_vlan_filter(9, True)
    net.send(wire, frame(1, 60, a.mac), tagged(frame(2, 60, a.mac), 9), tagged(frame(3, 60, a.mac), 10))
    with a.rx[0].receive() as batch:
        assert [number_of(bytes(packet)) for packet in batch] == [1, 2]
        assert batch.vlans.tolist() == [0, 9]
        assert [bool(flags & Flags.VLAN) for flags in batch.flags.tolist()] == [False, True]
    a.set_vlan_filter(9, False)
    net.send(wire, tagged(frame(2, 60, a.mac), 9))
    assert net.received(a) == []


def test_vlan_of_the_port(make: Make) -> None:
    """Whose function does not know of it: what it sends gets the tag, what it receives has none any more."""
    net = make(options=",vlan=7,spoof=off")
    a, wire = net.first, net.wire
    net.send(a, frame(1, 60, wire.mac))
    assert receive_all(wire) == [tagged(frame(1, 60, wire.mac), 7)]
    net.send(wire, tagged(frame(2, 60, a.mac), 7), tagged(frame(3, 60, a.mac), 8), frame(4, 60, a.mac))
    assert receive_all(a) == [frame(2, 60, a.mac)]
    with pytest.raises(Error, match="refuses VLAN 9"):
        a.set_vlan_filter(9, True)


# ---------------------------------------------------------------------------------------------------------------------
# Queues, and what is told of packets


def udp(number: int, target: bytes, port: int, *, spoiled: bool = False) -> bytes:
    """A UDP packet in IPv4, checksums by dpkt; or with a wrong one."""
    datagram = dpkt.udp.UDP(sport=port, dport=53, data=number.to_bytes(8, "big") + bytes(20))
    datagram.ulen = len(datagram)
    packet = dpkt.ip.IP(src=b"\x0a\0\0\1", dst=b"\x0a\0\0\2", p=17, data=datagram)
    packet.len = len(packet)
    data = bytes(dpkt.ethernet.Ethernet(dst=target, src=b"\x02\0\0\0\0\x09", data=packet))
    return data[:-1] + b"\1" if spoiled else data


@pytest.mark.parametrize("queues", [2, 4])
def test_hash_chooses_the_queue(queues: int, make: Make) -> None:
    """Key and table are the card's, the low bits of a table's entry say which of the function's queues."""
    net = make(rx_queues=queues, tx_queues=queues, metadata=("hash",))
    a, card = net.first, net.machine.cards["a"]
    key = b"".join(card.read32(row.offset).to_bytes(4, "little") for row in reg.RSSRK)
    table = [card.read32(row.offset) >> 8 * place & 15 for row in reg.RETA for place in range(4)]
    ports = random.Random(queues).sample(range(1024, 65536), 40)
    net.send(net.wire, *(udp(number, a.mac, port) for number, port in enumerate(ports)))
    seen = 0
    for number, queue in enumerate(a.rx):
        with queue.receive(64) as batch:
            for packet, told in zip(batch, batch.hashes.tolist(), strict=True):
                parsed = dpkt.ethernet.Ethernet(bytes(packet)).data
                fields = parsed.src + parsed.dst + struct.pack(">HH", parsed.data.sport, parsed.data.dport)
                wanted = toeplitz(key, fields)
                assert told == wanted
                assert table[wanted % 128] % queues == number
                seen += 1
            assert len(batch) > 0
    assert seen == len(ports)
    for number in range(queues):
        assert a.tx[number].send(batch_of(net.pool, [frame(number, 60, net.wire.mac)])) == 1
    net.machine.step(8)
    assert sorted(net.received(net.wire)) == list(range(queues))


def test_verdicts_on_checksums(make: Make) -> None:
    net = make(metadata=("flags",))
    a = net.first
    net.send(net.wire, udp(1, a.mac, 7), udp(2, a.mac, 7, spoiled=True), frame(3, 60, a.mac))
    with a.rx[0].receive() as batch:
        good, bad, none = batch.flags.tolist()
    assert good & (Flags.L4_GOOD | Flags.L4_BAD | Flags.IP_GOOD) == Flags.L4_GOOD | Flags.IP_GOOD
    assert bad & (Flags.L4_GOOD | Flags.L4_BAD) == Flags.L4_BAD
    assert not none & (Flags.L4_GOOD | Flags.L4_BAD | Flags.IPV4)


# ---------------------------------------------------------------------------------------------------------------------
# Many packets


@ixy.kernel
def turned(packet: ixy.Packet) -> int:
    """Send it back to where it comes from."""
    packet.eth.dst, packet.eth.src = packet.eth.src, packet.eth.dst
    return ixy.FORWARD


@pytest.mark.parametrize("batch", [4, 32])
def test_many_packets_through_a_path(batch: int, make: Make) -> None:
    """From the wire into a function and back, packet by packet or by batches: in order, with addresses changed."""
    net = make(ring_size=64, pool_size=160)
    a, wire = net.first, net.wire
    path = ixy.Path(a.rx[0], a.tx[0], turned, batch=batch)
    rng = random.Random(5)
    sent: list[bytes] = []
    seen: list[bytes] = []
    while len(sent) < 400:
        frames = [frame(len(sent) + n, rng.randrange(60, 1515), a.mac) for n in range(rng.randrange(1, 40))]
        sent += frames
        net.send(wire, *frames)
        path.run(64)
        net.machine.step(8)
        seen += receive_all(wire)
    assert seen == [data[6:12] + data[:6] + data[12:] for data in sent]
    assert counted(a)[::2] == (len(sent), len(sent))
    assert accounted(a) == 160


def test_closing_returns_all(make: Make) -> None:
    """All buffers are accounted for while it is open; no memory is left behind; the function can be opened again."""
    before = memory_files()
    for _ in range(2):
        net = make(ring_size=64, pool_size=96)
        net.send(net.wire, *(frame(number, 60, net.first.mac) for number in range(20)))
        assert accounted(net.first) == 96
        net.send(net.first, frame(1, 60, net.wire.mac))
        net.close()
        assert memory_files() == before


# ---------------------------------------------------------------------------------------------------------------------
# Interrupts, and the physical function's end


def test_interrupts(make: Make) -> None:
    """Vector n is queue n's, as far as there are three; a packet wakes who waits for its queue."""
    net = make(stepped=False, rx_queues=4)
    a, wire = net.first, net.wire
    for queue in a.rx[:3]:
        assert not queue.wait(0)
    net.send(wire, *(udp(number, a.mac, 1000 + number) for number in range(40)))
    for queue in a.rx[:3]:
        assert queue.wait(60)
    with pytest.raises(UnsupportedDevice, match="receive queue 3 has no interrupt, as 0 to 2 have"):
        a.rx[3].wait(0)
    received: list[bytes] = []

    def all_received() -> bool:
        received.extend(each for number in range(4) for each in receive_all(a, queue=number))
        return len(received) == 40

    until(all_received)
    fd = a.rx[0].fileno()
    assert not select.select([fd], [], [], 0)[0]
    net.send(wire, frame(1, 60, a.mac))
    assert select.select([fd], [], [], 60)[0]
    assert receive_all(a) == [frame(1, 60, a.mac)]


def test_reset_under_traffic(net: Net, make: Make) -> None:
    """The physical function is reset: both functions are told, and nothing is sent or received any more. All buffers
    come back, and once the physical function is up again, so are they.
    """
    a, b = net.first, net.second
    net.send(net.wire, frame(1, 60, a.mac))
    before = a.stats()
    net.machine.cards["a"].write32(reg.CTRL.offset, 1 << 26)
    net.send(a, frame(2, 60, net.wire.mac))
    assert net.received(net.wire) == []
    assert not a.link.up
    assert not b.link.up
    assert a.stats() == before
    for device in (a, b, net.wire):
        device.close()
    assert net.pool.available == 1024
    again = make()
    again.send(again.wire, frame(3, 60, again.first.mac))
    assert again.received(again.first) == [3]
