"""A look inside: what a device says that it is, all of its counters, and its registers."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from lab import BROADCAST, STATION, arrive, depart, frame, open_card, receive_all
from recorded import RecordedCard

from ixy.device import Device
from ixy.drivers.ixgbe import Ixgbe, statistics
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.errors import Error, UnsupportedDevice
from ixy.registers import virtio as reg
from ixy.sim.card.registers import Card
from ixy.sim.machine import Machine
from ixy.sim.virtio import BackEnd

pytestmark = pytest.mark.once

EICR, EICS, GPRC, QPRC0, SWSM, SW_FW_SYNC, FDIRMATCH = 0x800, 0x808, 0x4074, 0x1030, 0x10140, 0x10160, 0xEE58
TSYNCTXCTL, TXSTMPL, TXSTMPH = 0x8C00, 0x8C04, 0x8C08
MULTICAST = bytes.fromhex("01005e000001")


def semaphores_are_free(card: Card) -> bool:
    """Whether the first who reads gets them (10.5.4); they are given back."""
    held = card.read32(SWSM), card.read32(SW_FW_SYNC)
    for offset in (SWSM, SW_FW_SYNC):
        card.write32(offset, 0)
    return held == (0, 0)


# ---------------------------------------------------------------------------------------------------------------------
# Counters


def test_counters_by_the_datasheets_names(machine: Machine) -> None:
    """Five frames in, of which two are for groups, and one out; sizes count with the check sequence, GORC without."""
    with open_card(machine) as device:
        for data in (frame(0, 60), frame(1, 61), frame(2, 1514), frame(3, 60, BROADCAST), frame(4, 60, MULTICAST)):
            arrive(machine, data)
        assert len(receive_all(device)) == 5
        with device.rx[0].pool.allocate(1, 100) as batch:
            batch[0][:] = frame(5, 100)
            device.tx[0].send(batch)
        depart(machine)
        counted = {name: count for name, count in device.xstats().items() if count}
    assert counted == {
        "GPRC": 5,
        "GORC": 60 + 61 + 1514 + 60 + 60,
        "TPR": 5,
        "TOR": 60 + 61 + 1514 + 60 + 60 + 5 * 4,
        "PRC64": 3,
        "PRC127": 1,
        "PRC1522": 1,
        "BPRC": 1,
        "MPRC": 1,
        "QPRC[0]": 5,
        "QBRC[0]": 60 + 61 + 1514 + 60 + 60,
        "GPTC": 1,
        "GOTC": 104,
        "TPT": 1,
        "PTC127": 1,
        "QPTC[0]": 1,
        "QBTC[0]": 104,
    }


@pytest.mark.parametrize(("queue", "counter"), [(2, 2), (15, 15), (16, 0), (19, 3)])
def test_each_queue_has_counters(machine: Machine, queue: int, counter: int) -> None:
    """There are 16 sets, which queues 16 apart share. What finds no descriptor is dropped, and counted there too."""
    with open_card(machine, rx_queues=20, tx_queues=20, ring_size=64, pool_size=128) as device:
        device.rules.add(ethertype=0x88B5, queue=queue)
        for number in range(70):
            arrive(machine, frame(number))
        with device.rx[0].pool.allocate(3, 60) as batch:
            device.tx[queue].send(batch)
        depart(machine, queue=queue)
        counted = device.xstats()
        assert device.stats().rx_dropped == 70 - 63  # a ring of 64 has room for 63 frames
    assert {name: count for name, count in counted.items() if name.startswith("Q") and count} == {
        f"QPRC[{counter}]": 63,
        f"QBRC[{counter}]": 63 * 60,
        f"QPRDC[{counter}]": 70 - 63,
        f"QPTC[{counter}]": 3,
        f"QBTC[{counter}]": 3 * 64,
    }


def test_clearing(machine: Machine) -> None:
    """What was counted is told once more, then counters begin anew; what `stats` counts goes on."""
    with open_card(machine) as device:
        arrive(machine, frame(0))
        assert device.xstats(clear=True)["GPRC"] == 1
        assert not any(device.xstats().values())
        arrive(machine, frame(1))
        assert device.xstats()["QPRC[0]"] == 1
        assert device.stats().rx_packets == 2


def test_who_asks_takes_nothing_from_others(machine: Machine) -> None:
    """Three threads ask for counters in three ways, over and over, while frames arrive: in the end each finds all."""
    with open_card(machine) as device:
        done = threading.Event()

        def ask(what: str) -> None:
            while not done.is_set():
                device.registers(clear=True) if what == "registers" else getattr(device, what)()

        threads = [threading.Thread(target=ask, args=(what,)) for what in ("stats", "xstats", "registers")]
        for thread in threads:
            thread.start()
        for number in range(200):
            arrive(machine, frame(number))
        done.set()
        for thread in threads:
            thread.join()
        assert device.stats().rx_packets == 200
        assert device.stats().rx_bytes == 200 * 64
        counted = device.xstats()
        assert (counted["GPRC"], counted["TPR"], counted["QPRC[0]"], counted["PRC64"]) == (200,) * 4


def test_who_asks_for_sums_keeps_all_from_their_ends(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for sums alone, the driver reads all counters when it last did so 20 s ago."""
    moments = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(statistics, "time", SimpleNamespace(monotonic=lambda: moments.now))
    card = RecordedCard(machine)
    with Device(Ixgbe(card)) as device:
        for later, read in ((0, False), (19, False), (2, True), (19, False), (2, True)):
            moments.now += later
            card.log.clear()
            device.stats()
            places = {access.place for access in card.log}
            assert GPRC in places
            assert (QPRC0 in places) is read


def test_counters_of_a_virtio_device() -> None:
    """The device has none: what the rings counted of each queue."""
    features = 1 << reg.VERSION_1 | 1 << reg.MAC | 1 << reg.STATUS
    with Device(VirtioNet(InProcess(BackEnd("model", features)), ring_size=16, pool_size=80)) as device:
        with device.rx[0].pool.allocate(3, 60) as batch:
            assert device.tx[0].send(batch) == 3
        expected = {"tx_q0_packets": 3, "tx_q0_bytes": 3 * 64}
        assert {name: count for name, count in device.xstats().items() if count} == expected
        assert {"rx_q0_packets", "rx_q0_bytes", "rx_q0_refused", "rx_q0_starved"} <= set(device.xstats())
        with pytest.raises(UnsupportedDevice, match="model: a VirtIO device has no registers to show"):
            device.registers()
        info = device.info
        assert (info.driver, info.bus, info.features) == ("virtio", "in this process", ["MAC", "STATUS", "VERSION_1"])
        assert (info.mtu, info.max_rx_queues, info.rx_ring, info.firmware) == (1500, 1, 16, None)


# ---------------------------------------------------------------------------------------------------------------------
# Registers


def test_registers_as_the_driver_has_set_them(machine: Machine) -> None:
    """Values and fields by the datasheet: a ring of 64 descriptors, 16 bytes each, a queue that is on, the address."""
    with open_card(machine, ring_size=64, pool_size=128) as device:
        found = device.registers()
    assert found["RXDCTL[0]"].fields == {"ENABLE": 1, "VME": 0}
    assert found["RXDCTL[1]"].value == 0
    assert (found["RDLEN[0]"].value, found["RDLEN[0]"].register.offset) == (64 * 16, 0x1008)
    assert (found["RDT[0]"].fields, found["RXDCTL[127]"].register.offset) == ({"TAIL": 63}, 0xDFE8)
    assert found["RAL[0]"].value.to_bytes(4, "little") == STATION[:4]
    assert found["RXCTRL"].fields == {"RXEN": 1}
    assert not {"EICR", "GPRC", "QPRC[0]", "SWSM", "SW_FW_SYNC", "TXSTMPH", "EIMC", "ERETA[0]"} & set(found)


@pytest.mark.parametrize("kind", ["82599", "x540"])
def test_reading_registers_changes_nothing(machine: Machine, kind: str) -> None:
    """An interrupt's cause is kept, and counters, a time stamp, and semaphores that nobody has."""
    with open_card(machine, f"sim:a,card={kind}") as device:
        card = machine.cards["a"]
        card.write32(TSYNCTXCTL, 1 << 4)
        card.write32(EICS, 1 << 20)
        arrive(machine, frame(0))
        control = card._registers[TSYNCTXCTL // 4] = 1 << 4 | 1  # a packet was stamped
        card._registers[TXSTMPH // 4] = 77
        card._registers[FDIRMATCH // 4] = 0
        for _ in range(2):
            device.registers()
        assert card.read32(TSYNCTXCTL) == control
        assert card.read32(EICR) == 1 << 20
        assert card.read32(GPRC) == card.read32(QPRC0) == 1
        assert semaphores_are_free(card)


def test_registers_that_reading_clears(machine: Machine) -> None:
    """When asked for, they are told as they were, and counters go on to be counted."""
    with open_card(machine) as device:
        arrive(machine, frame(0))
        found = device.registers(clear=True)
        assert (found["GPRC"].value, found["QBRCL[0]"].value, found["GORCL"].value) == (1, 60, 60)
        assert not {"SWSM", "SW_FW_SYNC", "TXSTMPH", "EIMC"} & set(found)
        assert machine.cards["a"].read32(GPRC) == 0
        assert device.registers(clear=True)["GPRC"].value == 0
        assert device.stats().rx_packets == device.xstats()["GPRC"] == 1
        arrive(machine, frame(1))
        assert device.stats().rx_packets == 2


# ---------------------------------------------------------------------------------------------------------------------
# Info


def test_info(machine: Machine) -> None:
    """What was asked for, and what configuration space and EEPROM of the model say."""
    with open_card(
        machine, rx_queues=2, tx_queues=3, ring_size=64, pool_size=200, metadata=("flags", "vlan")
    ) as device:
        device.rules.add(ethertype=0x88F7, queue=1)
        info = device.info
    assert (info.address, info.driver, info.model, info.bus) == ("sim:a", "ixgbe", "82599ES SFP+", "simulated")
    assert (info.mac, info.mtu, info.link_up, info.link_speed) == (STATION.hex(":"), 1500, False, 0)
    assert (info.rx_queues, info.tx_queues, info.max_rx_queues, info.max_tx_queues) == (2, 3, 128, 128)
    assert (info.rx_ring, info.tx_ring, info.buffers, info.metadata) == (64, 64, 200, ("flags", "vlan"))
    assert info.rules == ("ethertype 0x88f7 → queue 1",)
    assert set(info.rx_offloads) == {"RSS_HASH", "VLAN_STRIP", "IPV4_CKSUM", "UDP_CKSUM", "TCP_CKSUM", "SCTP_CKSUM"}
    assert info.firmware == "0x80000599"
    # PCI Express Base 3.0, 7.8.6: the model is one of 5 GT/s and 8 lanes
    assert (info.pcie_speed, info.pcie_width, info.pcie_max_speed, info.pcie_max_width) == (5.0, 8, 5.0, 8)


def test_an_x540s_eeprom_is_read_under_its_semaphore(machine: Machine) -> None:
    """It is taken for the two words, and given back: the first who asks for it gets it."""
    with open_card(machine, "sim:a,card=x540") as device:
        assert device.info.firmware == "0x80000599"
        assert semaphores_are_free(machine.cards["a"])


def test_an_x550_does_not_let_its_eeprom_be_read(machine: Machine) -> None:
    with Device(Ixgbe(RecordedCard(machine, 0x1563))) as device:
        assert (device.info.model, device.info.firmware) == ("X550-T2", None)
        assert len([name for name in device.registers() if name.startswith("ERETA")]) == 96


def test_nothing_is_told_of_a_closed_device(machine: Machine) -> None:
    device = open_card(machine)
    device.close()
    for ask in (lambda: device.info, device.xstats, device.registers):
        with pytest.raises(Error, match="sim:a is closed"):
            ask()
