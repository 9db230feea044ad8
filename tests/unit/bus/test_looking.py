"""Looking at a card that nobody here has open: it is neither taken nor changed, and what cannot be seen is said."""

from __future__ import annotations

import fcntl
import os
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ixy.apps.unopened import look, registers, xstats
from ixy.bus import PcieLink, Slot
from ixy.bus.capabilities import capabilities, pcie_link
from ixy.bus.lock import DeviceLock
from ixy.bus.pci import PciDevice
from ixy.errors import DeviceBusy, Error, PermissionDenied, UnsupportedDevice

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from fake_sysfs import FakeSysfs

pytestmark = pytest.mark.once

SLOT = "0000:03:00.0"
MAC = bytes.fromhex("a0369f010203")
RAL, RAH, LINKS, GPRC, RXDCTL0 = 0xA200, 0xA204, 0x42A4, 0x4074, 0x1028


def write32(device: Path, offset: int, value: int) -> None:
    """Put a value into a register."""
    with (device / "resource0").open("r+b") as file:
        file.seek(offset)
        file.write(value.to_bytes(4, "little"))


def switch_on(device: Path) -> None:
    """Let the device decode memory accesses, as a driver does (PCI Local Bus 3.0, 6.2.2)."""
    with (device / "config").open("r+b") as file:
        file.seek(4)
        file.write(b"\x02\x00")


@pytest.fixture
def card(sysfs: FakeSysfs) -> Path:
    """An 82599 whose driver has switched it on: its link is up at 10 Gbit/s, its first receive queue is on."""
    device = sysfs.add(SLOT, driver="ixgbe", numa_node=1)
    interface = sysfs.add_interface(device, "fake0", up=False)
    (interface / "mtu").write_text("9000\n")
    for name, text in (
        ("current_link_speed", "2.5 GT/s PCIe"),
        ("current_link_width", "4"),
        ("max_link_speed", "5.0 GT/s PCIe"),
        ("max_link_width", "8"),
    ):
        (device / name).write_text(text + "\n")
    switch_on(device)
    write32(device, RAL, int.from_bytes(MAC[:4], "little"))
    write32(device, RAH, 1 << 31 | int.from_bytes(MAC[4:], "little"))
    write32(device, LINKS, 1 << 30 | 3 << 28)
    write32(device, RXDCTL0, 1 << 25)
    write32(device, GPRC, 5)
    return device


def contents(device: Path) -> dict[str, str]:
    """All files of a device."""
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in device.rglob("*") if path.is_file()}


def test_a_card_of_the_kernels(sysfs: FakeSysfs, card: Path) -> None:
    """What sysfs and registers tell, by the offsets of the datasheet; nothing is written, no lock is taken."""
    before = contents(card)
    info, state, notes = look(SLOT)
    assert (info.model, info.kernel_driver, info.interfaces) == ("82599ES SFP+", "ixgbe", ("fake0",))
    assert (info.mac, info.link_up, info.link_speed, info.mtu) == (MAC.hex(":"), True, 10_000, 1500)
    assert (info.numa_node, info.driver, info.rx_queues) == (1, None, None)
    assert (info.pcie_speed, info.pcie_width, info.pcie_max_speed, info.pcie_max_width) == (2.5, 4, 5.0, 8)
    assert (state, notes) == ("nobody: the kernel's ixgbe has it", ())
    found = {reading.name: reading for reading in registers(SLOT)}
    assert found["RXDCTL[0]"].fields == {"ENABLE": 1, "VME": 0}
    assert "GPRC" not in found
    assert contents(card) == before
    assert sysfs.log == []
    assert list((sysfs.root / "locks").iterdir()) == []


def test_counters_are_read_when_told(sysfs: FakeSysfs) -> None:
    """They are cleared by that, and so not when the kernel's driver counts."""
    device = sysfs.add(SLOT)
    switch_on(device)
    write32(device, GPRC, 5)
    with pytest.raises(Error, match=r"nobody has it open, and its counters are cleared by reading them: --clear"):
        xstats(SLOT)
    assert xstats(SLOT, clear=True)["GPRC"] == 5
    assert {reading.name: reading.value for reading in registers(SLOT, clear=True)}["GPRC"] == 5


def test_who_counts_is_not_robbed(card: Path, sysfs: FakeSysfs) -> None:
    """Neither the kernel's driver, nor a process that has the card and serves no telemetry."""
    assert card.exists()
    for ask in (lambda: xstats(SLOT, clear=True), lambda: registers(SLOT, clear=True)):
        with pytest.raises(DeviceBusy, match="the kernel's ixgbe has it, and counts: ethtool -S fake0"):
            ask()
    other = "0000:04:00.0"
    switch_on(sysfs.add(other))
    with closing(DeviceLock(other, other)):
        with pytest.raises(DeviceBusy, match=rf"{other} is in use by process {os.getpid()} .*serve_telemetry"):
            xstats(other, clear=True)
        assert f"process {os.getpid()}" in look(other).state
        assert registers(other)  # reading changes nothing for it


@pytest.mark.parametrize(
    ("power", "command", "words"),
    [("D0", 0, "as no driver has switched them on"), ("D3hot", 2, "as the card sleeps (D3hot)")],
)
def test_registers_that_are_out_of_reach(sysfs: FakeSysfs, power: str, command: int, words: str) -> None:
    """Reading would give ones at best: it is said, and the rest is told."""
    device = sysfs.add(SLOT)
    (device / "power_state").write_text(power + "\n")
    if command:
        switch_on(device)
    info, _, notes = look(SLOT)
    assert (info.model, info.mac) == ("82599ES SFP+", None)
    assert notes == [f"{SLOT}: registers are out of reach, {words}"]
    with pytest.raises(Error, match="registers are out of reach"):
        registers(SLOT)


def test_an_ordinary_user(card: Path, ordinary_user: Callable[[], AbstractContextManager[None]]) -> None:
    """He sees what sysfs shows everybody, and is told what it takes to see more."""
    (card / "resource0").chmod(0o600)
    with ordinary_user():
        info, _, notes = look(SLOT)
        assert (info.interfaces, info.pcie_width) == (("fake0",), 4)
        assert notes == [f"{SLOT}: no permission to look at its registers: run as root (sudo)"]
        with pytest.raises(PermissionDenied):
            registers(SLOT)


def test_a_card_for_vfio(sysfs: FakeSysfs) -> None:
    """It is nobody's yet."""
    sysfs.add(SLOT, driver="vfio-pci")
    assert look(SLOT).state == "nobody: it is there for who opens it through VFIO"


def test_a_card_of_others(sysfs: FakeSysfs) -> None:
    """Of one that no driver here knows, sysfs is all there is."""
    sysfs.add(SLOT, vendor=0x14E4, device=0x16D8)
    assert look(SLOT).info.model == "14e4:16d8"
    with pytest.raises(UnsupportedDevice, match="of a 14e4:16d8, no registers are known here"):
        registers(SLOT)


def test_where_the_kernel_knows_no_link(sysfs: FakeSysfs) -> None:
    """The attributes are not there, or say "Unknown"."""
    device = sysfs.add(SLOT)
    assert PciDevice(SLOT).slot_in("sysfs") == Slot("sysfs", None, None)
    for name in ("current_link_speed", "current_link_width", "max_link_speed", "max_link_width"):
        (device / name).write_text("Unknown\n")
    assert PciDevice(SLOT).slot_in("VFIO") == Slot("VFIO", None, None)


def test_a_look_does_not_disturb_who_takes_the_card(sysfs: FakeSysfs) -> None:
    """While it is looked at, another process locks it."""
    switch_on(sysfs.add(SLOT))
    look(SLOT)
    with closing(DeviceLock(SLOT, SLOT)) as lock:
        fcntl.flock(lock.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---------------------------------------------------------------------------------------------------------------------
# Capabilities


def space(**bytes_at: int) -> Callable[[int, int], int]:
    """A configuration space of zeros but for some bytes: `b34=0x40`."""
    data = bytearray(256)
    for place, value in bytes_at.items():
        data[int(place[1:], 16)] = value
    return lambda offset, size: int.from_bytes(data[offset : offset + size], "little")


def test_the_link_of_a_configuration_space() -> None:
    """Behind a capability of power management one of PCI Express, at 0x50: 8 GT/s × 16 possible, 5 × 4 negotiated."""
    read = space(b06=0x10, b34=0x40, b40=0x01, b41=0x50, b50=0x10, b5c=0x03, b5d=0x01, b62=0x42)
    assert list(capabilities(read)) == [(0x01, 0x40), (0x10, 0x50)]
    assert pcie_link(read) == PcieLink(5.0, 4, 8.0, 16)


def test_a_list_that_runs_in_a_circle_ends() -> None:
    """As many capabilities as there could be are looked at, and none where there is no list."""
    circle = space(b06=0x10, b34=0x40, b40=0x01, b41=0x40)
    assert len(list(capabilities(circle))) == 48
    assert pcie_link(circle) is None
    assert list(capabilities(space(b34=0x40, b40=0x10))) == []
