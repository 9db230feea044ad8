"""The driver against the model: what it writes, what goes through, what it counts, what it refuses."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from lab import BROADCAST, OTHER, STATION, accounted, arrive, batch_of, depart, frame, number_of, open_card, receive_all
from toeplitz import KEY

from ixy.device import Device
from ixy.errors import AddressError, ConfigurationError, DeviceBusy, Error, OwnershipError
from ixy.packets.batch import lent
from ixy.packets.buffers import POOLS
from ixy.packets.dma import window
from ixy.packets.mempool import Mempool
from ixy.registers import Register
from ixy.registers import i82599 as reg
from ixy.sim.machine import BUS_BASE, Machine

# ---------------------------------------------------------------------------------------------------------------------
# Bring-up


def values(machine: Machine, name: str = "a") -> Callable[[Register], int]:
    card = machine.cards[name]
    return lambda register: card.read32(register.offset)


def test_registers_after_bring_up(machine: Machine) -> None:
    """Two queues each way, rings of 256: the registers hold what chapter 4.6 of the datasheet asks for."""
    with open_card(machine, rx_queues=2, tx_queues=2, ring_size=256, pool_size=300):
        read = values(machine)
        assert read(reg.EIMS) == 0  # 4.6.3.1
        assert read(reg.CTRL) & (1 << 2 | 1 << 3 | 1 << 26) == 0  # 4.6.3.2, no reset or master disable pending
        assert (read(reg.AUTOC) >> 13) & 7 == 3  # 10 Gbit/s serial
        assert (read(reg.AUTOC2) >> 16) & 3 == 2  # SFI
        # 4.6.7: receive
        assert read(reg.RXCTRL) == 1
        assert [read(row) >> 10 for row in reg.RXPBSIZE] == [512, 0, 0, 0, 0, 0, 0, 0]
        assert read(reg.FCTRL) == 1 << 8 | 1 << 9 | 1 << 10
        assert read(reg.HLREG0) & 0b11 == 0b11  # both FCS bits
        assert read(reg.HLREG0) & 1 << 10  # pad short frames
        assert read(reg.RDRXCTL) & (1 << 1 | 31 << 17 | 3 << 25) == 1 << 1 | 3 << 25  # and 8.2.3.8.8
        for table in (reg.PFUTA, reg.VFTA, reg.PFVLVF, reg.PFVLVFB, reg.MTA, reg.FTQF):
            assert not any(read(row) for row in table), table.name
        assert [read(row) for row in reg.MPSAR] == [1, 0] * 128
        assert read(reg.CTRL_EXT) & 1 << 16
        assert read(reg.SECRXCTRL) & 1 << 1 == 0
        for queue in range(2):
            assert read(reg.SRRCTL[queue]) == 1 << 25 | 1 << 28 | 4 << 8 | 2  # advanced, drop when full, 2 KiB
            assert read(reg.DCA_RXCTRL[queue]) & 1 << 12 == 0
            assert read(reg.RXDCTL[queue]) & 1 << 25
            assert (read(reg.RDLEN[queue]), read(reg.RDH[queue]), read(reg.RDT[queue])) == (4096, 0, 255)
        # 4.6.8: transmit
        assert read(reg.DMATXCTL) == 0x8100_0001
        assert [read(row) >> 10 for row in reg.TXPBSIZE] == [160, 0, 0, 0, 0, 0, 0, 0]
        assert read(reg.DTXMXSZRQ) == 0xFFF
        assert read(reg.RTTDCS) & 1 << 6 == 0
        for queue in range(2):
            control = read(reg.TXDCTL[queue])
            assert (control & 0x7F, control >> 8 & 0x7F, control >> 16 & 0x7F) == (36, 8, 0)
            assert control & 1 << 25
            assert (read(reg.TDLEN[queue]), read(reg.TDH[queue]), read(reg.TDT[queue])) == (4096, 0, 0)
        # 4.6.10.1.1: two queues share what arrives
        assert b"".join(read(row).to_bytes(4, "little") for row in reg.RSSRK) == KEY
        assert [read(row) for row in reg.RETA] == [0x01000100] * 32
        assert read(reg.MRQC) == 1 | (1 << 16 | 1 << 17 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23)
        assert read(reg.RXCSUM) & 1 << 13
        for unused in (reg.RXDCTL[2], reg.TXDCTL[2], reg.RDLEN[2], reg.TDLEN[2]):
            assert read(unused) == 0
        assert machine.cards["a"].config_read(4, 2) & 1 << 2  # bus master


def test_rings_lie_apart_at_bus_addresses(machine: Machine) -> None:
    """Four rings of 4 KiB: aligned to 128 bytes, not overlapping, and none at an address that is a pointer."""
    with open_card(machine, rx_queues=2, tx_queues=2, ring_size=256, pool_size=300):
        read = values(machine)
        pairs = [(low[q], high[q]) for low, high in ((reg.RDBAL, reg.RDBAH), (reg.TDBAL, reg.TDBAH)) for q in range(2)]
        bases = sorted(read(low) | read(high) << 32 for low, high in pairs)
        assert all(base % 128 == 0 for base in bases)
        assert all(later - earlier >= 4096 for earlier, later in pairwise(bases))
        assert bases[0] >= BUS_BASE
        assert not window().address(0) <= bases[0] < window().address(0) + window().size


def test_descriptors_after_bring_up(machine: Machine) -> None:
    """Each of 64 receive descriptors holds another buffer's bus address, and status 0 (7.1.6.1)."""
    with open_card(machine, ring_size=64, pool_size=96) as device:
        words = device.rx[0].ring.state.descriptors.reshape(-1, 2)
        assert len(set(words[:, 0].tolist())) == 64
        assert not words[:, 1].any()
        allowed = machine.rack.allowed
        for address in words[:, 0].tolist():
            assert allowed[(address - BUS_BASE) // 4096]
            assert allowed[(address - BUS_BASE + 2047) // 4096]


def test_card_is_silent_after_close(machine: Machine) -> None:
    """Closing leaves queues and receiver off, bus mastering off, and no memory that DMA may touch."""
    with open_card(machine, "sim:b,cable=a"):
        in_use = int(machine.rack.allowed.sum())
        open_card(machine, rx_queues=2).close()
        card = machine.cards["a"]
        for register in (reg.RXCTRL, reg.RXDCTL[0], reg.RXDCTL[1], reg.TXDCTL[0], reg.EIMS):
            assert card.read32(register.offset) == 0
        assert card.read32(reg.DMATXCTL.offset) & 1 == 0
        assert card.config_read(4, 2) & 1 << 2 == 0
        assert int(machine.rack.allowed.sum()) == in_use
    assert not machine.rack.allowed.any()


def test_close_twice_and_use_after(machine: Machine) -> None:
    """A second close does nothing; everything else says that the device is closed, and by which name."""
    device = open_card(machine)
    pool = Mempool(4)
    batch = pool.allocate(1)
    device.close()
    device.close()
    uses = [
        lambda: device.mac,
        lambda: device.link,
        device.stats,
        device.rx[0].receive,
        lambda: device.tx[0].send(batch),
        lambda: device.set_promiscuous(False),
        lambda: device.set_mac_filter([]),
        lambda: device.set_vlan_filter(1, True),
        device.wait_for_link,
        lambda: device.attach(pool),
    ]
    for use in uses:
        with pytest.raises(Error, match=r"^sim:a is closed: open it again$"):
            use()
    assert repr(device) == "<Device sim:a (ixgbe), closed>"
    batch.free()
    pool.release()


def test_trace_explains_the_bring_up(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """Each access is logged with its section; the first is the one that masks interrupts."""
    caplog.set_level(logging.DEBUG, "ixy.registers")
    open_card(machine).close()
    assert re.match(r"sim:a write EIMC .*\[§8\.2\.3\.5\.4\]$", caplog.messages[0])
    assert all(re.search(r"\[§[\d.]+\]$", message) for message in caplog.messages)
    assert any("RXCTRL" in message and "RXEN 0x0 → 0x1" in message for message in caplog.messages)


# ---------------------------------------------------------------------------------------------------------------------
# Packets


def test_every_size_arrives_whole(machine: Machine) -> None:
    """Frames of 60 to 1514 bytes, each with other content."""
    with open_card(machine) as device:
        for size in range(60, 1515):
            data = frame(size, size)
            arrive(machine, data)
            assert receive_all(device) == [data]
        assert accounted(device) == device.rx[0].pool.capacity


def test_every_size_leaves_whole(machine: Machine) -> None:
    """Frames of 60 to 1514 bytes leave as they are; shorter ones are padded with zeros by the card (8.2.3.22.8)."""
    pool = Mempool(2048)
    with open_card(machine) as device:
        for size in range(1, 1515):
            data = frame(size, size)
            assert device.tx[0].send(batch_of(pool, [data])) == 1
            assert depart(machine) == [data.ljust(60, b"\0")]
    assert pool.available == pool.capacity
    pool.release()


@pytest.mark.parametrize("ring_size", [64 << n for n in range(7)])
def test_rings_of_all_sizes_wrap(machine: Machine, ring_size: int) -> None:
    """Three times around the rings in uneven steps: all packets arrive and leave, in order."""
    with open_card(machine, ring_size=ring_size, pool_size=4 * ring_size) as device:
        sent = arrived = 0
        step = ring_size // 2 - 3
        left: list[int] = []
        while sent < 3 * ring_size:
            for _ in range(step):
                arrive(machine, frame(arrived))
                arrived += 1
            with device.rx[0].receive(ring_size) as batch:
                assert len(batch) == step
                sent += device.tx[0].send(batch)
            left += [number_of(data) for data in depart(machine)]
        assert left == list(range(arrived))
        assert device.stats().rx_dropped == 0
        assert accounted(device) == 4 * ring_size


def test_full_receive_ring_drops_and_counts(machine: Machine) -> None:
    """A ring of 64 takes 63 of 100 frames, the oldest; the other 37 are dropped and counted, and it goes on after."""
    with open_card(machine, ring_size=64, pool_size=256) as device:
        for number in range(100):
            arrive(machine, frame(number))
        assert [number_of(data) for data in receive_all(device)] == list(range(63))
        stats = device.stats()
        assert (stats.rx_dropped, stats.rx_packets) == (37, 100)
        arrive(machine, frame(100))
        assert [number_of(data) for data in receive_all(device)] == [100]
        assert device.stats().rx_dropped == 37


def test_full_transmit_ring_takes_what_fits(machine: Machine) -> None:
    """Of 100 packets a ring of 64 takes 63; the batch keeps the rest, which go once the card has sent a group of 32."""
    pool = Mempool(128)
    with open_card(machine, ring_size=64, pool_size=96) as device:
        queue = device.tx[0]
        batch = batch_of(pool, [frame(number) for number in range(100)])
        assert queue.send(batch) == 63
        assert (len(batch), number_of(bytes(batch[0])), queue.in_flight) == (37, 63, 63)
        assert queue.send(batch) == 0
        first = depart(machine, 31)
        assert queue.send(batch) == 0  # the group's last descriptor has not been reported
        first += depart(machine, 1)
        assert queue.send(batch) == 32
        assert len(batch) == 5
        first += depart(machine)
        assert queue.send(batch) == 5
        with pytest.raises(OwnershipError):
            queue.send(batch)
        first += depart(machine)
        assert [number_of(data) for data in first] == list(range(100))
        assert pool.available + queue.in_flight == 128
    assert pool.available == 128
    pool.release()


def test_unsent_packets_go_back(machine: Machine) -> None:
    """Leaving the scope of a batch that the ring did not take returns its packets, and only those."""
    pool = Mempool(128)
    with open_card(machine, ring_size=64, pool_size=96) as device:
        with batch_of(pool, [frame(number) for number in range(100)]) as batch:
            device.tx[0].send(batch)
        assert pool.available == 128 - 63
        assert device.tx[0].in_flight == 63
    assert pool.available == 128  # the device has closed, and gives back what was never sent
    pool.release()


def test_empty_receive_ring(machine: Machine) -> None:
    """Nothing has arrived: an empty batch, and the registers stand still."""
    with open_card(machine) as device:
        for _ in range(3):
            with device.rx[0].receive() as batch:
                assert len(batch) == 0
        assert values(machine)(reg.RDT[0]) == 511


@pytest.mark.parametrize("limit", [1, 7, 64])
def test_batches_are_as_large_as_asked_for(machine: Machine, limit: int) -> None:
    """Sixty frames come in batches of the limit, and a last one of what is left."""
    with open_card(machine, ring_size=64, pool_size=128) as device:
        for number in range(60):
            arrive(machine, frame(number))
        sizes = []
        while True:
            with device.rx[0].receive(limit) as batch:
                if not len(batch):
                    break
                sizes.append(len(batch))
        assert sizes == [limit] * (60 // limit) + ([60 % limit] if 60 % limit else [])


@pytest.mark.parametrize("limit", [0, -1, 65, 10**6])
def test_batch_sizes_that_no_ring_has(machine: Machine, limit: int) -> None:
    """The message says what the ring allows."""
    with (
        open_card(machine, ring_size=64, pool_size=96) as device,
        pytest.raises(ConfigurationError, match=f"limit {limit}: 1 to 64 are possible"),
    ):
        device.rx[0].receive(limit)


def test_received_packet_can_be_changed_and_sent_on(machine: Machine) -> None:
    """The three ways: a Packet, NumPy, and, from another queue's pool, a batch that goes out of another card."""
    with open_card(machine) as a, open_card(machine, "sim:b") as b:
        for number in range(4):
            arrive(machine, frame(number))
        batch = a.rx[0].receive()
        for packet in batch:
            packet[48] += 1
        batch.bytes[:, 49] ^= 0xFF
        assert b.tx[0].send(batch) == 4
        for number, data in enumerate(depart(machine, name="b")):
            expected = bytearray(frame(number))
            expected[48] = (expected[48] + 1) % 256
            expected[49] ^= 0xFF
            assert data == bytes(expected)


def test_pool_outlives_the_card_it_came_from(machine: Machine) -> None:
    """Card a closes while card b still has packets of a's pool to send: they leave whole, and then the pool is gone."""
    b = open_card(machine, "sim:b")
    a = open_card(machine)
    for number in range(4):
        arrive(machine, frame(number))
    pool = a.rx[0].pool
    assert b.tx[0].send(a.rx[0].receive()) == 4
    a.close()
    assert not pool.closed
    assert [number_of(data) for data in depart(machine, name="b")] == [0, 1, 2, 3]
    b.close()
    assert pool.closed


# ---------------------------------------------------------------------------------------------------------------------
# Several queues


@pytest.mark.parametrize("queues", [2, 128])
def test_transmit_queues_are_independent(machine: Machine, queues: int) -> None:
    """Each of several transmit queues sends its own packets through its own ring; each receive queue has a pool."""
    pool = Mempool(4 * queues)
    with open_card(machine, rx_queues=2, tx_queues=queues, ring_size=64, pool_size=96) as device:
        for queue in range(queues):
            device.tx[queue].send(batch_of(pool, [frame(10 * queue + i) for i in range(3)]))
        for queue in reversed(range(queues)):
            assert [number_of(data) for data in depart(machine, queue=queue)] == [10 * queue + i for i in range(3)]
        assert len({queue.pool.number for queue in device.rx}) == 2
        assert [queue.pool.available for queue in device.rx] == [32, 32]
        assert device.stats().tx_packets == 3 * queues
    pool.release()


# ---------------------------------------------------------------------------------------------------------------------
# What goes wrong


def test_empty_pool_is_noticed_and_survived(machine: Machine) -> None:
    """A ring of 64 whose pool has 36 more: so many packets come out, the rest wait; freed buffers let them through."""
    with open_card(machine, ring_size=64, pool_size=100) as device:
        for number in range(60):
            arrive(machine, frame(number))
        held = [device.rx[0].receive(32) for _ in range(4)]
        assert [len(batch) for batch in held] == [32, 4, 0, 0]
        assert device.stats().rx_starved == 3
        assert device.rx[0].pool.available == 0
        held[1].free()
        with device.rx[0].receive(32) as batch:
            assert [number_of(bytes(packet)) for packet in batch] == list(range(36, 40))
        held[0].free()
        rest = [number_of(data) for data in receive_all(device)]
        assert rest == list(range(40, 60))
        assert accounted(device) == 100
        assert device.stats().rx_dropped == 0


def test_smallest_pool_forwards(machine: Machine) -> None:
    """A ring of 64 whose pool has 32 more: ten times so many packets are received and sent, in order."""
    with open_card(machine, ring_size=64, pool_size=96) as device:
        left: list[int] = []
        for number in range(320):
            arrive(machine, frame(number))
            with device.rx[0].receive() as batch:
                device.tx[0].send(batch)
            left += [number_of(data) for data in depart(machine)]
        assert left == list(range(320))


@pytest.mark.parametrize(("ring_size", "capacity"), [(512, 4096), (2048, 4096), (4096, 8192)])
def test_pool_grows_with_the_ring(machine: Machine, ring_size: int, capacity: int) -> None:
    """Unless told how large it shall be."""
    with open_card(machine, ring_size=ring_size) as device:
        assert device.rx[0].pool.capacity == capacity


def allow_jumbo(machine: Machine, size: int = 9018) -> None:
    card = machine.cards["a"]
    card.write32(reg.HLREG0.offset, card.read32(reg.HLREG0.offset) | 1 << 2)
    card.write32(reg.MAXFRS.offset, size << 16)


@pytest.mark.parametrize("size", [2049, 4096, 4097, 9014])
def test_frame_longer_than_a_buffer_is_refused(machine: Machine, size: int) -> None:
    """Jumbo frames span several descriptors: they are dropped and counted, their neighbours come through whole."""
    with open_card(machine, ring_size=64, pool_size=128) as device:
        allow_jumbo(machine)
        for number in range(30):
            arrive(machine, frame(number, size if number % 3 == 1 else 200))
            for data in receive_all(device):
                assert data == frame(number, 200)
                assert number % 3 != 1
        assert device.stats().rx_refused == 10
        assert accounted(device) == 128


def test_frame_of_exactly_a_buffer(machine: Machine) -> None:
    """2048 bytes fit, and arrive."""
    with open_card(machine) as device:
        allow_jumbo(machine)
        data = frame(1, 2048)
        arrive(machine, data)
        assert receive_all(device) == [data]
        assert device.stats().rx_refused == 0


def test_refused_frame_split_between_batches(machine: Machine) -> None:
    """A frame of three descriptors is taken in steps of one: none of its parts is mistaken for a packet."""
    with open_card(machine, ring_size=64, pool_size=128) as device:
        allow_jumbo(machine)
        arrive(machine, frame(0, 5000))
        arrive(machine, frame(1, 100))
        found = []
        for _ in range(4):
            with device.rx[0].receive(1) as batch:
                found += [bytes(packet) for packet in batch]
        assert found == [frame(1, 100)]
        assert device.stats().rx_refused == 1


# ---------------------------------------------------------------------------------------------------------------------
# Statistics, filters, link


def test_statistics(machine: Machine) -> None:
    """Packets and bytes as on the wire, 4 bytes of frame check sequence each; too short and too long are errors."""
    pool = Mempool(64)
    with open_card(machine) as device:
        sizes = [60, 100, 1514]
        for size in sizes:
            arrive(machine, frame(size, size))
        arrive(machine, frame(0, 59))
        arrive(machine, frame(0, 1515))
        device.tx[0].send(batch_of(pool, [frame(0, 60), frame(1, 300), frame(2, 20)]))
        depart(machine)
        for _ in range(2):  # asking does not change them
            stats = device.stats()
            assert (stats.rx_packets, stats.rx_bytes) == (3, sum(sizes) + 12)
            assert (stats.tx_packets, stats.tx_bytes) == (3, 60 + 300 + 60 + 12)
            assert (stats.rx_errors, stats.rx_dropped, stats.rx_refused, stats.rx_starved) == (2, 0, 0, 0)
        arrive(machine, frame(0, 60))
        assert device.stats().rx_packets == 4
    pool.release()


def test_statistics_start_at_zero(machine: Machine) -> None:
    """What the card counted under its last owner is gone when it is opened again."""
    with open_card(machine, "sim:b,cable=a"):
        with open_card(machine):
            arrive(machine, frame())
            assert machine.cards["a"]
        with open_card(machine) as device:
            assert device.stats().rx_packets == 0


def test_vlan_tag_makes_room_for_itself(machine: Machine) -> None:
    """A tagged frame may be 4 bytes longer (8.2.3.22.13); untagged it is an error."""
    with open_card(machine) as device:
        tagged = STATION + OTHER + b"\x81\x00\x00\x01" + bytes(1518 - 16)
        arrive(machine, tagged)
        assert receive_all(device) == [tagged]
        arrive(machine, tagged + b"\0")
        arrive(machine, frame(0, 1518))
        assert receive_all(device) == []
        assert device.stats().rx_errors == 2


MULTICAST = bytes.fromhex("01005e000001")


def test_promiscuous_mode(machine: Machine) -> None:
    """On from the start: everything comes in. Off: the station's own and broadcasts. On again: everything."""
    with open_card(machine) as device:
        frames = {address: frame(1, destination=address) for address in (device.mac, OTHER, BROADCAST, MULTICAST)}

        def accepted() -> set[bytes]:
            for data in frames.values():
                arrive(machine, data)
            return {data[:6] for data in receive_all(device)}

        assert accepted() == set(frames)
        device.set_promiscuous(False)
        assert accepted() == {device.mac, BROADCAST}
        device.set_promiscuous(True)
        assert accepted() == set(frames)


def test_mac_filter(machine: Machine) -> None:
    """The stations and groups that were asked for come in besides the card's own; those of an earlier call no more."""
    stations = [bytes([2, 0, 0, 0, 0, number]) for number in range(127)]

    with open_card(machine) as device:

        def accepted() -> list[bytes]:
            for address in (*stations, MULTICAST, device.mac):
                arrive(machine, frame(1, destination=address))
            return [data[:6] for data in receive_all(device)]

        device.set_promiscuous(False)
        device.set_mac_filter(stations)
        assert accepted() == [*stations, device.mac]
        device.set_mac_filter([stations[5], MULTICAST])
        assert accepted() == [stations[5], MULTICAST, device.mac]
        device.set_mac_filter([])
        assert accepted() == [device.mac]
        for wrong, message in (([*stations, MULTICAST], "127 are possible"), ([OTHER[:5]], "a MAC address has 6")):
            with pytest.raises(ConfigurationError, match=message):
                device.set_mac_filter(wrong)


def tagged(vlan: int) -> bytes:
    """A broadcast of that VLAN, and of priority 7."""
    data = frame(vlan, destination=BROADCAST)
    return data[:12] + b"\x81\x00" + (0xE000 | vlan).to_bytes(2, "big") + data[12:]


def test_vlan_filter(machine: Machine) -> None:
    """Of VLANs 0, 31, 32 and 4095 those come in that were asked for; packets without a tag always; all in promiscuous
    mode. The table holds bits of the card's user before, which no reset clears: they count for nothing.
    """
    vlans = [0, 31, 32, 4095]

    def accepted(device: Device) -> list[int]:
        for vlan in vlans:
            arrive(machine, tagged(vlan))
        arrive(machine, frame(5000, destination=BROADCAST))
        received = receive_all(device)
        assert received[-1] == frame(5000, destination=BROADCAST)
        return [vlan for vlan in vlans if tagged(vlan) in received]

    peer = open_card(machine, "sim:b,cable=a")  # while it is there, the card has power
    with open_card(machine):
        for register in reg.VFTA:
            machine.cards["a"].write32(register.offset, 0xFFFFFFFF)
    with peer, open_card(machine) as device:
        device.set_promiscuous(False)
        assert accepted(device) == vlans
        device.set_vlan_filter(31, True)
        device.set_vlan_filter(4095, True)
        assert accepted(device) == [31, 4095]
        device.set_vlan_filter(31, False)
        device.set_vlan_filter(32, True)
        assert accepted(device) == [32, 4095]
        device.set_promiscuous(True)
        assert accepted(device) == vlans
        device.set_promiscuous(False)
        assert accepted(device) == [32, 4095]
        for wrong in (-1, 4096):
            with pytest.raises(ConfigurationError, match="0 to 4095 are possible"):
                device.set_vlan_filter(wrong, True)


def test_mac_address(machine: Machine) -> None:
    """The card's own at first; a new one filters by itself; it is gone after a reset; group addresses are refused."""
    with open_card(machine, "sim:b,cable=a"):
        with open_card(machine) as device:
            own = machine.cards["a"].mac
            assert device.mac == own
            device.set_promiscuous(False)
            device.mac = OTHER
            assert device.mac == OTHER
            arrive(machine, frame(1, destination=own))
            arrive(machine, frame(2, destination=OTHER))
            assert [number_of(data) for data in receive_all(device)] == [2]
            for wrong in (MULTICAST, BROADCAST, b"", OTHER[:5], OTHER + b"\0"):
                with pytest.raises(ConfigurationError, match="MAC address"):
                    device.mac = wrong
            assert device.mac == OTHER
        with open_card(machine) as device:
            assert device.mac == own


def test_link(machine: Machine) -> None:
    """A card with nothing plugged in has no link; a cable gives both ends 10 Gbit/s."""
    with open_card(machine) as a:
        assert a.link == (False, 0)
        assert a.wait_for_link(0.001) == (False, 0)
        with open_card(machine, "sim:b,cable=a") as b:
            assert a.link == b.link == a.wait_for_link(0.001) == (True, 10_000)


# ---------------------------------------------------------------------------------------------------------------------
# Configuration


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rx_queues": 0}, "rx_queues 0: 1 to 128"),
        ({"rx_queues": 129}, "rx_queues 129: 1 to 128"),
        ({"tx_queues": 0}, "tx_queues 0: 1 to 128"),
        ({"tx_queues": -1}, "tx_queues -1: 1 to 128"),
        ({"ring_size": 63}, "a ring of 63 descriptors"),
        ({"ring_size": 0}, "ring_size 0: 1 to"),
        ({"ring_size": 96}, "a ring of 96 descriptors"),
        ({"ring_size": 8192}, "a ring of 8192 descriptors"),
        ({"pool_size": 512}, "a pool of 512 buffers: a ring of 512 needs at least 544"),
        ({"pool_size": 543}, "a pool of 543 buffers: a ring of 512 needs at least 544"),
        ({"pool_size": 64_001}, "pool_size 64001: 1 to 64000"),
    ],
)
def test_configurations_that_are_refused(machine: Machine, options: dict[str, int], message: str) -> None:
    """One line that says what is possible; the card is free again."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_card(machine, **options)
    assert "\n" not in str(caught.value)
    open_card(machine).close()


def test_more_pools_than_a_process_has(machine: Machine) -> None:
    """16 receive queues take as many, all others are the program's. A second card cannot be opened, and is left as it
    was; then it can.
    """
    pools = [Mempool(1) for _ in range(POOLS - 16)]
    with open_card(machine, rx_queues=16, ring_size=64, pool_size=96) as device:
        with pytest.raises(Error, match="close a device or release a pool first"):
            open_card(machine, "sim:b")
        arrive(machine, frame())
        device.rx[0].receive().free()
    for pool in pools:
        pool.release()
    open_card(machine, "sim:b").close()


def test_card_that_is_open(machine: Machine) -> None:
    """Opening a card twice is refused until it is closed."""
    with open_card(machine), pytest.raises(DeviceBusy, match="sim:a is open already"):
        open_card(machine)
    open_card(machine).close()


@pytest.mark.parametrize("address", ["", "eth0", "sim", "03:00", "0000:zz:00.0", "pci:03:00.0"])
def test_addresses_that_name_nothing(machine: Machine, address: str) -> None:
    """One line that says how an address is written."""
    with pytest.raises(AddressError, match=r"write 0000:03:00\.0"):
        open_card(machine, address)


def test_buffers_hold_no_numbers_twice(machine: Machine) -> None:
    """After a thousand packets in and out, free, queued and flying buffers are all different and all of the pool."""
    with open_card(machine, ring_size=64, pool_size=200) as device:
        for number in range(1000):
            arrive(machine, frame(number))
            if number % 5 == 4:
                with device.rx[0].receive() as batch:
                    device.tx[0].send(batch)
                depart(machine, 3)
        pool = device.rx[0].pool
        ring, tx = device.rx[0].ring.state, device.tx[0].ring.state
        with pool.allocate(pool.capacity) as batch:
            free = lent(batch)[0].ids[: len(batch)].tolist()
        flying = [int(tx.held.ids[slot % 64]) for slot in range(int(tx.state[1]), int(tx.state[0]))]
        everywhere = free + ring.held.ids.tolist() + flying
        assert sorted(everywhere) == sorted(pool.ids.tolist())
        assert np.all(np.diff(sorted(everywhere)) > 0)
