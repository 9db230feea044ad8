"""Opening a card through sysfs, on a tree of regular files."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ixy.bus import pagemap
from ixy.bus.sysfs import SysfsFunction
from ixy.errors import AddressError, DeviceBusy, Error, MemoryUnavailable, PermissionDenied, UnsupportedDevice

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from fake_sysfs import FakeSysfs

SLOT = "0000:03:00.0"
HUGE_PAGE = 2 << 20
BAR0_SIZE = 512 << 10

# Opens the card in the tree given as argument, says so, and keeps it until its input ends.
OPENER = """
import sys
from pathlib import Path
from ixy.bus import lock, pci
from ixy.bus.sysfs import SysfsFunction
pci.SYSFS = Path(sys.argv[1])
lock.LOCKS = pci.SYSFS / "locks"
function = SysfsFunction(sys.argv[2])
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("address", ["0000:03:00.0", "03:00.0", "0000:03:00.0".upper()])
def test_open_and_close(sysfs: FakeSysfs, address: str) -> None:
    """A card without driver, by each way to write its address: it is enabled while open, and keeps what was written."""
    path = sysfs.add(SLOT)
    function = SysfsFunction(address)
    assert function.address == address
    assert function.kernel_driver is None
    assert (path / "enable").read_text() == "1"
    function.close()
    assert (path / "enable").read_text() == "0"


def test_kernel_driver_is_unbound_and_remembered(sysfs: FakeSysfs) -> None:
    """The kernel's ixgbe has the card: it is unbound, before anything else is written, and its name is kept."""
    path = sysfs.add(SLOT, driver="ixgbe")
    function = SysfsFunction(SLOT)
    assert sysfs.log == [("unbind", SLOT), ("enable", "1")]
    assert function.kernel_driver == "ixgbe"
    assert not (path / "driver").exists()
    function.close()
    assert not (path / "driver").exists(), "closing does not give the card back"


def test_open_does_not_enable_bus_mastering(sysfs: FakeSysfs) -> None:
    """The command register (offset 4) is as before: DMA starts only when the driver wants it."""
    path = sysfs.add(SLOT)
    SysfsFunction(SLOT).close()
    assert (path / "config").read_bytes()[4:6] == b"\0\0"


def test_config_space(sysfs: FakeSysfs) -> None:
    """Reads are little-endian of 1, 2 and 4 bytes; setting bit 2 of the command register changes that byte only."""
    path = sysfs.add(SLOT)
    function = SysfsFunction(SLOT)
    assert [function.config_read(0, size) for size in (1, 2, 4)] == [0x86, 0x8086, 0x10FB8086]
    function.config_write(4, 2, function.config_read(4, 2) | 1 << 2)
    assert (path / "config").read_bytes() == b"\x86\x80\xfb\x10\x04" + bytes(251)
    with pytest.raises(Error, match=f"{SLOT}: the configuration space ends before 0x102"):
        function.config_read(254, 4)
    function.close()


def test_bar(sysfs: FakeSysfs) -> None:
    """A word written at an offset is at that offset of the file, and read back there; the array shows it too."""
    path = sysfs.add(SLOT)
    function = SysfsFunction(SLOT)
    bar = function.bar(0)
    assert bar.words.shape == (BAR0_SIZE // 4,)
    assert bar.words.dtype == np.uint32
    bar.write32(0x5400, 0x89ABCDEF)
    bar.write32(BAR0_SIZE - 4, 0xFFFFFFFF)
    assert (path / "resource0").read_bytes()[0x5400:0x5404] == b"\xef\xcd\xab\x89"
    assert bar.read32(0x5400) == bar.words[0x1500] == 0x89ABCDEF
    assert bar.read32(BAR0_SIZE - 4) == 0xFFFFFFFF
    assert function.bar(0) is bar
    function.close()


def test_missing_bar(sysfs: FakeSysfs) -> None:
    """An 82599 has no BAR 1: an error of one line, not a traceback of the operating system's."""
    sysfs.add(SLOT)
    function = SysfsFunction(SLOT)
    with pytest.raises(Error, match=f"{SLOT}: cannot open resource1: No such file or directory"):
        function.bar(1)
    function.close()


@pytest.mark.parametrize("address", ["", "eth0", "03:00", "0000:03:00.8", "0000:03:20.0", "0000:03:00.0 ", "../x", "é"])
def test_malformed_address(address: str) -> None:
    """What is no PCI address is refused with an example of one. Device numbers end at 1f, functions at 7."""
    with pytest.raises(AddressError, match=r"is not a PCI address: write it like 0000:03:00\.0"):
        SysfsFunction(address)


def test_unknown_address(sysfs: FakeSysfs) -> None:
    """There is a card, but not at this address."""
    sysfs.add(SLOT)
    with pytest.raises(AddressError, match=r"04:00\.0: no such PCI device; `ixy list` shows"):
        SysfsFunction("04:00.0")


@pytest.mark.parametrize(("pci_class", "kind"), [(0x010601, "mass storage"), (0x028000, "network, not Ethernet")])
def test_not_an_ethernet_card(sysfs: FakeSysfs, pci_class: int, kind: str) -> None:
    """A disk controller, a wireless card: refused by class, with their driver left alone."""
    sysfs.add(SLOT, pci_class=pci_class, driver="ahci")
    with pytest.raises(UnsupportedDevice, match=rf"{SLOT} is not an Ethernet card: its class is 0x0\w+ \({kind}\)"):
        SysfsFunction(SLOT)
    assert sysfs.log == []


def test_in_use_by_another_process(sysfs: FakeSysfs) -> None:
    """A second process has the card open: the error names it. Once it was killed, the card is free."""
    sysfs.add(SLOT)
    command = [sys.executable, "-c", OPENER, str(sysfs.root), SLOT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(DeviceBusy, match=rf"^03:00\.0 is in use by process {other.pid} \(.*python.*\)$"):
            SysfsFunction("03:00.0", force=True)
        other.kill()
    SysfsFunction(SLOT).close()


def test_open_twice(sysfs: FakeSysfs) -> None:
    """One process cannot have a card twice either; after close it can have it again."""
    sysfs.add(SLOT)
    function = SysfsFunction(SLOT)
    with pytest.raises(DeviceBusy, match=f"in use by process {os.getpid()} "):
        SysfsFunction(SLOT)
    function.close()
    SysfsFunction(SLOT).close()


def test_interface_up_with_an_address(sysfs: FakeSysfs) -> None:
    """An interface with an address: refused before anything is unbound, and the lock is let go; force takes it."""
    sysfs.add_interface(sysfs.add(SLOT, driver="ixgbe"), "fake0", up=True)
    sysfs.add_address("fake0")
    with pytest.raises(DeviceBusy, match=rf"{SLOT}: interface fake0 is up with address 2001:db8::1; .*--force"):
        SysfsFunction(SLOT)
    assert sysfs.log == []
    function = SysfsFunction(SLOT, force=True)
    assert function.kernel_driver == "ixgbe"
    function.close()


def test_no_permission(sysfs: FakeSysfs, ordinary_user: Callable[[], AbstractContextManager[None]]) -> None:
    """An ordinary user, and files that are root's: one line of advice, and the kernel driver stays."""
    path = sysfs.add(SLOT, driver="ixgbe")
    (path / "config").chmod(0o444)
    message = rf"^{SLOT}: no permission to open config: run as root \(sudo\)$"
    with ordinary_user(), pytest.raises(PermissionDenied, match=message):
        SysfsFunction(SLOT)
    assert sysfs.log == []
    (path / "config").chmod(0o644)
    SysfsFunction(SLOT).close()


def test_iommu_is_warned_of(sysfs: FakeSysfs, caplog: pytest.LogCaptureFixture) -> None:
    """Physical addresses mean nothing to an IOMMU that translates; they are right where it passes them through."""
    path = sysfs.add(SLOT)
    (path / "iommu_group").mkdir()
    (path / "iommu_group/type").write_text("identity\n")
    SysfsFunction(SLOT).close()
    assert caplog.messages == []
    (path / "iommu_group/type").write_text("DMA-FQ\n")
    SysfsFunction(SLOT).close()
    assert caplog.messages == [f"{SLOT}: an IOMMU may refuse its DMA; run: ixy bind {SLOT} vfio-pci"]


def test_map_scattered_pages(sysfs: FakeSysfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three huge pages that lie backwards and apart in physical memory: each is looked up by itself, once locked."""
    virtual, frames = 0x40000000, [0x90000, 0x1200, 0x80000]
    with (tmp_path / "pagemap").open("wb") as file:
        for index, frame in enumerate(frames):
            file.seek((virtual + index * HUGE_PAGE) // mmap.PAGESIZE * 8)
            file.write((frame | 1 << 63 | 1 << 61).to_bytes(8, "little"))  # present, file-backed
    monkeypatch.setattr(pagemap, "PAGEMAP", tmp_path / "pagemap")
    locked: list[bool] = []
    memory = SimpleNamespace(
        page_size=HUGE_PAGE,
        size=3 * HUGE_PAGE,
        virtual_address=virtual,
        lock=lambda: locked.append(True),
        offset=0,
        fd=os.memfd_create("test"),
    )
    sysfs.add(SLOT)
    function = SysfsFunction(SLOT)
    mapping = function.map(memory)  # type: ignore[arg-type]
    assert locked == [True]
    assert mapping.page_size == HUGE_PAGE
    assert mapping.pages.tolist() == [frame * mmap.PAGESIZE for frame in frames]
    function.unmap(memory)  # type: ignore[arg-type]
    function.close()
    os.close(memory.fd)


def test_map_without_huge_pages(sysfs: FakeSysfs) -> None:
    """Small pages may move while a device uses them, so they are refused; the message says what to run."""
    sysfs.add(SLOT)
    function = SysfsFunction(SLOT)
    with pytest.raises(MemoryUnavailable, match=f"{SLOT}: no 2 MiB huge pages left for DMA memory; run: ixy setup"):
        function.map(SimpleNamespace(page_size=4096))  # type: ignore[arg-type]
    function.close()
