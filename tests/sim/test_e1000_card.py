"""The control plane of the gigabit cards against a partner in the same process, and against cards that are broken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from ixy.apps import inside
from ixy.apps.registers import print_registers
from ixy.device import Device
from ixy.drivers.e1000 import E1000
from ixy.drivers.e1000.inprocess import InProcess
from ixy.errors import ConfigurationError, DeviceTimeout, UnsupportedDevice
from ixy.registers import e1000 as reg
from ixy.sim.gigabit import NEWER, OLDER, Gigabit

pytestmark = pytest.mark.once

MAC = bytes.fromhex("0200c0ffee01")


def opened(card: Gigabit, **options: Any) -> Device:
    return Device(E1000(InProcess(card), **{"ring_size": 64, "pool_size": 128} | options))


def word(card: Gigabit, register: reg.Register) -> int:
    return int(card.words[register.offset // 4])


@pytest.mark.parametrize("kind", [NEWER, OLDER])
def test_a_card_is_brought_up_and_left_silent(kind: int) -> None:
    card = Gigabit(kind, MAC)
    card.words[reg.RCTL.offset // 4] = 0xFFFFFFFF  # as somebody else may have left it
    with opened(card) as device:
        assert device.mac == MAC
        assert device.link == (True, 1000)
        assert word(card, reg.RCTL) == 1 << 1 | 1 << 3 | 1 << 4 | 1 << 15 | 1 << 26  # EN, UPE, MPE, BAM, SECRC
        assert word(card, reg.RDLEN[0]) == 64 * 16
        assert word(card, reg.RDT[0]) == 63
        assert word(card, reg.TCTL) & 2
        assert card.config[4] & 4  # bus master
    assert not word(card, reg.RCTL) & 2
    assert not word(card, reg.TCTL) & 2
    assert not card.config[4] & 4
    assert not card.port.allowed.any()


def test_two_queues_and_their_table() -> None:
    """By default every other entry of 128 is of queue 1, whose sign is an entry's highest bit; then only queue 1."""
    card = Gigabit(NEWER)
    with opened(card, rx_queues=2, tx_queues=2) as device:
        assert str(device.spread) == "Toeplitz over IPv4, IPv6 and TCP, 2 queues, default key"
        assert [word(card, register) for register in reg.RETA] == [0x80008000] * 32
        assert word(card, reg.MRQC) & 3 == 1
        assert word(card, reg.RSSRK[0]) == 0xDA565A6D
        device.set_rss_table([1])
        assert [word(card, register) for register in reg.RETA] == [0x80808080] * 32


@pytest.mark.parametrize("kind", [NEWER, OLDER])
def test_filters(kind: int) -> None:
    """Whole addresses in 15 registers, stations first; groups for which there is no room by their last 16 bits, the
    upper 12 of which are a place in the table."""
    card = Gigabit(kind, MAC)
    groups = [bytes.fromhex("01005e0000") + bytes([number]) for number in range(20)]
    station = bytes.fromhex("0200000000cc")
    with opened(card) as device:
        device.set_promiscuous(False)
        device.set_mac_filter([*groups, station])
        assert word(card, reg.RAL[1]) == 0x00000002
        assert word(card, reg.RAH[1]) == 0x8000CC00
        assert [word(card, register) >> 31 for register in reg.RAH] == [1] * 16
        # groups 14 to 19 are left: bytes 4 and 5 are 00 0e … 00 13, as a number 0x0e00 … 0x1300, shifted by 4
        places = {(0x0E00 + 0x100 * i) >> 4 for i in range(6)}
        found = {32 * i + bit for i, row in enumerate(reg.MTA) for bit in range(32) if word(card, row) >> bit & 1}
        assert found == places
        device.set_mac_filter([])
        assert [word(card, register) >> 31 for register in reg.RAH] == [1] + [0] * 15
        assert not any(word(card, register) for register in reg.MTA)
        device.set_vlan_filter(100, True)
        assert word(card, reg.VFTA[3]) == 1 << 4
        assert reg.RCTL.decode(word(card, reg.RCTL))["VFE"] == 1
        device.set_promiscuous(True)
        assert reg.RCTL.decode(word(card, reg.RCTL))["VFE"] == 0
        with pytest.raises(ConfigurationError, match="16 addresses of stations: the card has room for 15"):
            device.set_mac_filter([bytes([2, 0, 0, 0, 0, number]) for number in range(16)])


def test_counters_are_added_up_although_they_clear() -> None:
    card = Gigabit(NEWER)
    with opened(card) as device:
        for _ in range(2):
            for row, count in ((reg.GPRC, 7), (reg.GORCL, 0xFFFFFFFF), (reg.GORCH, 1), (reg.MPC, 3), (reg.CRCERRS, 2)):
                card.words[row.offset // 4] = count
            device.xstats()
        stats = device.stats()
        assert (stats.rx_packets, stats.rx_bytes, stats.rx_dropped, stats.rx_errors) == (14, 2 * 0x1FFFFFFFF, 6, 4)
        assert device.xstats()["GPRC"] == 14


def test_counters_that_do_not_clear_are_not_counted_twice() -> None:
    """As those of QEMU's 82540, some of which go on."""

    class Keeping(Gigabit):
        def read32(self, offset: int) -> int:
            value = super().read32(offset)
            if offset == reg.MPC.offset:
                self.words[offset // 4] = value
            return value

    card = Keeping(OLDER)
    card.words[reg.MPC.offset // 4] = 5  # before it was opened
    with opened(card) as device:
        for count, seen in ((5, 0), (9, 4), (9, 4), (12, 7)):
            card.words[reg.MPC.offset // 4] = count
            assert device.stats().rx_dropped == seen


@pytest.mark.parametrize("kind", [NEWER, OLDER])
def test_what_is_counted_while_it_is_read_is_not_lost(kind: int) -> None:
    """A packet comes after each look: all are counted, though as many are there again as were before."""

    class Busy(Gigabit):
        came = 0

        def read32(self, offset: int) -> int:
            value = super().read32(offset)
            if offset == reg.GPRC.offset and self.came:
                self.words[offset // 4] += 1
                self.came += 1
            return value

    card = Busy(kind)
    with opened(card) as device:
        card.words[reg.GPRC.offset // 4] = card.came = 3
        for _ in range(4):
            rx_packets = device.stats().rx_packets
        assert rx_packets == card.came - 1  # the last one came after the last look


@pytest.mark.parametrize("kind", [NEWER, OLDER])
def test_registers_are_shown_without_a_change(kind: int) -> None:
    card = Gigabit(kind)
    with opened(card) as device:
        card.words[reg.GPRC.offset // 4] = 7
        shown = device.registers()
        assert word(card, reg.GPRC) == 7
        assert shown["RCTL"].value == word(card, reg.RCTL)
        assert "GPRC" not in shown
        assert "SWSM" not in shown
        assert ("MRQC" in shown) == (kind == NEWER)
        assert ("RDT[1]" in shown) == (kind == NEWER)
        assert device.registers(clear=True)["GPRC"].value == 7
        assert device.stats().rx_packets == 7


def test_registers_are_decoded_by_the_rows_of_their_card(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """RDT[0] is at 0x2818 of a gigabit card, and at 0x1018 of an 82599."""
    with opened(Gigabit(OLDER)) as device:
        found = {name: reading.value for name, reading in device.registers().items()}
    monkeypatch.setattr(inside, "registers", lambda *_, **__: found)
    options: dict[str, Any] = {"process": None, "show_all": False, "clear": False, "diff": None, "since": None}
    print_registers("gigabit", ["RDT", "RCTL"], as_json=False, **options)
    lines = capsys.readouterr().out.splitlines()
    assert "  0x02818 RDT[0]          0x0000003f  TAIL=0x3f  [§10.2.5]" in lines
    assert any(line.startswith("  0x00100 RCTL            0x0400801a  EN=1 SBP=0 UPE=1 MPE=1 ") for line in lines)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        (OLDER, {"rx_queues": 2}, "2 receive queues: 1 to 1 are possible"),
        (NEWER, {"tx_queues": 3}, "3 transmit queues: 1 to 2 are possible"),
        (OLDER, {"metadata": ("hash",)}, "the device does not tell 'hash'"),
        (NEWER, {"ring_size": 100}, "a ring of 100 descriptors"),
        (NEWER, {"pool_size": 64}, "a pool of 64 buffers: a ring of 64 needs at least 96"),
        (NEWER, {"mtu": 9001, "metadata": ("parts",)}, "mtu 9001: 68 to 9000 are possible"),
        (NEWER, {"mtu": 3000}, "above 2026 it takes several buffers: metadata=('parts',)"),
        (OLDER, {"offloads": ("coalescing",)}, "the device does not do 'coalescing'"),
    ],
)
def test_what_a_card_has_not_is_refused_before_it_is_touched(kind: int, options: dict[str, Any], error: str) -> None:
    card = Gigabit(kind)
    before = card.words.copy()
    with pytest.raises(ConfigurationError, match=re.escape(error)):
        opened(card, **options)
    assert (card.words == before).all()


def test_who_waits_is_told_that_there_are_no_interrupts() -> None:
    with opened(Gigabit(NEWER)) as device, pytest.raises(UnsupportedDevice, match="1 MSI-X interrupts: it has none"):
        device.rx[0].wait(0)


# ---------------------------------------------------------------------------------------------------------------------
# Broken cards


class Broken(Gigabit):
    """A card of which some registers always read a certain value.

    Args:
        values: by register.
    """

    def __init__(self, kind: int, values: Sequence[tuple[reg.Register, int]]) -> None:
        super().__init__(kind)
        self._values = {register.offset: value for register, value in values}

    def read32(self, offset: int) -> int:
        return self._values.get(offset, super().read32(offset))


class Gone(Gigabit):
    """A card that was pulled out."""

    def read32(self, offset: int) -> int:  # noqa: ARG002
        return 0xFFFFFFFF


@pytest.mark.parametrize(
    ("card", "error"),
    [
        (Gone(NEWER), "CTRL did not reach RST=0 within 0.2 s: it reads 0xffffffff"),
        (Gone(OLDER), "CTRL did not reach RST=0 within 0.2 s: it reads 0xffffffff"),
        (Broken(OLDER, [(reg.CTRL, 1 << 26)]), "CTRL did not reach RST=0 within 0.2 s: it reads 0x04000000"),
        (Broken(NEWER, [(reg.EEC, 0)]), "EEC did not reach AUTO_RD=1 within 0.5 s: it reads 0x00000000"),
        (Broken(NEWER, [(reg.EERD, 0)]), "EERD did not reach DONE=1 within 0.1 s: it reads 0x00000000"),
        (Broken(OLDER, [(reg.EERD, 2)]), "EERD did not reach DONE=1 within 0.1 s: it reads 0x00000002"),
        (Broken(OLDER, [(reg.MDIC, 0)]), "MDIC did not reach READY=1 within 0.1 s: it reads 0x00000000"),
    ],
)
def test_a_card_that_does_not_answer(card: Gigabit, error: str) -> None:
    """The error says which register did not do what; the card reaches no memory then, and is no bus master."""
    with pytest.raises(DeviceTimeout, match=re.escape(f"gigabit: {error}")):
        opened(card)
    assert not card.port.allowed.any()
    assert not card.config[4] & 4


def test_a_card_that_is_pulled_out_later_can_be_closed() -> None:
    """Its link reads as it likes; closing says what is wrong, gives the memory back, and can be repeated."""
    card = Gigabit(OLDER)
    device = opened(card)
    card.read32 = lambda offset: 0xFFFFFFFF  # noqa: ARG005
    with pytest.raises(DeviceTimeout, match="CTRL did not reach RST=0"):
        device.close()
    device.close()
    assert not card.port.allowed.any()
    assert not card.config[4] & 4


def test_a_semaphore_that_is_never_free_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """Its owner is dead: the driver says so and goes on."""
    with opened(Broken(NEWER, [(reg.SWSM, 1)])):
        assert "SWSM did not reach SMBI=0" in caplog.text
