"""Listing the machine's cards, and moving them between drivers."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ixy.apps.listing import print_devices
from ixy.bus import listing
from ixy.bus.binding import bind, unbind
from ixy.bus.listing import PciInfo, network_devices
from ixy.bus.lock import DeviceLock
from ixy.bus.pci import PciDevice, write_attribute
from ixy.errors import AddressError, ConfigurationError, DeviceBusy, Error, PermissionDenied, UnsupportedDevice

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from fake_sysfs import FakeSysfs

SLOT = "0000:03:00.0"
SUPPORTED = {(0x8086, 0x10FB): "Intel 82599"}

PCI_IDS = """\
# a comment
1af4  Red Hat, Inc.
\t1000  Virtio network device
8086  Intel Corporation
\t10fb  82599ES 10-Gigabit SFI/SFP+ Network Connection
\t\t8086 000c  Ethernet Server Adapter X520-1
8087  Somebody else
\t1000  Not Intel's
"""


def test_list_shows_network_cards_only(sysfs: FakeSysfs) -> None:
    """An 82599 on node 1 with an idle interface, between a bridge and a disk controller: all of it is told."""
    sysfs.add("0000:00:00.0", pci_class=0x060000)
    sysfs.add("0000:04:00.0", pci_class=0x010601)
    sysfs.add_interface(sysfs.add(SLOT, driver="ixgbe", numa_node=1), "fake0", up=False)
    expected = PciInfo(SLOT, 0x8086, 0x10FB, "Intel 82599", "ixgbe", ("fake0",), 1, None)
    assert network_devices(SUPPORTED) == [expected]
    assert expected.usable


def test_machine_without_pci(sysfs: FakeSysfs) -> None:
    """No PCI bus, no cards, no error."""
    (sysfs.root / "bus/pci/devices").rmdir()
    assert network_devices(SUPPORTED) == []


def test_numa_node_unknown(sysfs: FakeSysfs) -> None:
    """The kernel says -1, or nothing, where there is one node."""
    sysfs.add(SLOT)
    (sysfs.add("0000:04:00.0") / "numa_node").unlink()
    assert [info.numa_node for info in network_devices(SUPPORTED)] == [None, None]


def test_names_from_the_list_of_pci_ids(sysfs: FakeSysfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The public list goes before the drivers' names; what neither knows is shown by its ids."""
    (tmp_path / "pci.ids").write_text(PCI_IDS)
    monkeypatch.setattr(listing, "PCI_IDS", (tmp_path / "absent", tmp_path / "pci.ids"))
    sysfs.add("0000:03:00.0")
    sysfs.add("0000:04:00.0", device=0x1000)
    sysfs.add("0000:05:00.0", vendor=0x15B3, device=0x1013)
    sysfs.add("0000:06:00.0", vendor=0x8087, device=0x1000)
    assert [info.name for info in network_devices({(0x8086, 0x1000): "by the driver"})] == [
        "Intel Corporation 82599ES 10-Gigabit SFI/SFP+ Network Connection",
        "by the driver",
        "15b3:1013",
        "Somebody else Not Intel's",
    ]


def test_cards_of_all_drivers(sysfs: FakeSysfs, capsys: pytest.CaptureFixture[str]) -> None:
    """What `ixy.open` opens is listed as usable: an 82599 and both kinds of VirtIO devices; another card is not."""
    for slot, (vendor, device) in enumerate([(0x8086, 0x10FB), (0x1AF4, 0x1000), (0x1AF4, 0x1041), (0x8086, 0x1572)]):
        sysfs.add(f"0000:0{slot}:00.0", vendor=vendor, device=device)
    print_devices(as_json=True)
    assert [card["usable"] for card in json.loads(capsys.readouterr().out)] == [True, True, True, False]


def test_why_a_card_cannot_be_used(sysfs: FakeSysfs) -> None:
    """A card that no driver here knows, one that a process has, one that the kernel's network stack uses."""
    sysfs.add("0000:01:00.0", device=0x100E)
    sysfs.add("0000:02:00.0")
    sysfs.add_interface(sysfs.add("0000:03:00.0"), "fake0", up=True)
    sysfs.add_address("fake0")
    with closing(DeviceLock("0000:02:00.0", "02:00.0")):
        no_driver, locked, used = network_devices(SUPPORTED)
    assert not any(info.usable for info in (no_driver, locked, used))
    assert no_driver.reason == "no driver"
    assert str(locked.reason).startswith("in use by process ")
    assert used.reason == "interface fake0 is up with address 2001:db8::1 (--force)"
    assert network_devices(SUPPORTED)[1].usable, "looking takes no lock, and the lock is gone"


def test_list_without_permission(sysfs: FakeSysfs, ordinary_user: Callable[[], AbstractContextManager[None]]) -> None:
    """An ordinary user sees the card, and what to do."""
    (sysfs.add(SLOT) / "config").chmod(0o444)
    with ordinary_user():
        (info,) = network_devices(SUPPORTED)
    assert info.reason == "no permission: run as root (sudo)"


def test_bind_to_a_named_driver_and_back(sysfs: FakeSysfs) -> None:
    """From ixgbe to vfio-pci by driver_override, and back to whichever driver knows the ids."""
    sysfs.add(SLOT, driver="ixgbe")
    sysfs.add_driver("vfio-pci")
    bind("03:00.0", "vfio-pci")
    assert PciDevice(SLOT).driver == "vfio-pci"
    assert sysfs.log == [("unbind", SLOT), ("driver_override", "vfio-pci"), ("drivers_probe", SLOT)]
    assert unbind("03:00.0") == "ixgbe"
    assert PciDevice(SLOT).driver == "ixgbe"
    assert sysfs.log[3:] == [("unbind", SLOT), ("driver_override", "\n"), ("drivers_probe", SLOT)]


def test_unbind_where_the_kernel_has_no_driver(sysfs: FakeSysfs) -> None:
    """No module loaded knows the card: that is no error, but is said."""
    sysfs.add(SLOT)
    assert unbind(SLOT) is None


def test_bind_to_a_driver_that_is_not_loaded(sysfs: FakeSysfs) -> None:
    """Found out before the card is taken from its driver."""
    sysfs.add(SLOT, driver="ixgbe")
    with pytest.raises(ConfigurationError, match="no PCI driver 'vfio-pci' loaded; run: modprobe vfio-pci"):
        bind(SLOT, "vfio-pci")
    assert sysfs.log == []


def test_bind_to_a_driver_that_refuses(sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel probes, and the driver does not take the card: the message says how to undo it."""
    sysfs.add(SLOT, driver="ixgbe")
    sysfs.add_driver("vfio-pci")
    monkeypatch.setattr(sysfs, "attach", lambda slot, driver: None)  # noqa: ARG005
    with pytest.raises(Error, match=rf"{SLOT}: vfio-pci did not take the card .*`ixy unbind {SLOT}` gives it back"):
        bind(SLOT, "vfio-pci")


def test_bind_refuses_a_used_interface(sysfs: FakeSysfs) -> None:
    """Both directions refuse, and touch nothing, unless forced."""
    sysfs.add_interface(sysfs.add(SLOT, driver="ixgbe"), "fake0", up=True)
    sysfs.add_address("fake0")
    sysfs.add_driver("vfio-pci")
    with pytest.raises(DeviceBusy, match="--force"):
        bind(SLOT, "vfio-pci")
    with pytest.raises(DeviceBusy, match="--force"):
        unbind(SLOT)
    assert sysfs.log == []
    bind(SLOT, "vfio-pci", force=True)
    assert PciDevice(SLOT).driver == "vfio-pci"


def test_bind_refuses_a_card_that_a_process_has(sysfs: FakeSysfs) -> None:
    """Not even force takes a card from a running process."""
    sysfs.add(SLOT, driver="ixgbe")
    with closing(DeviceLock(SLOT, SLOT)), pytest.raises(DeviceBusy, match=f"{SLOT} is in use by process"):
        unbind(SLOT, force=True)
    assert sysfs.log == []


def test_attribute_is_written_but_never_created(tmp_path: Path) -> None:
    """An attribute that this kernel lacks is reported as absent, not made as a file."""
    (tmp_path / "driver_override").touch()
    write_attribute(tmp_path / "driver_override", "vfio-pci")
    assert (tmp_path / "driver_override").read_text() == "vfio-pci"
    with pytest.raises(FileNotFoundError):
        write_attribute(tmp_path / "absent", "vfio-pci")


def test_bind_errors(sysfs: FakeSysfs) -> None:
    """A malformed address, one that names nothing, and a disk controller."""
    sysfs.add(SLOT, pci_class=0x010601)
    for address, error in (("x", AddressError), ("04:00.0", AddressError), (SLOT, UnsupportedDevice)):
        with pytest.raises(error):
            bind(address, "vfio-pci")
        with pytest.raises(error):
            unbind(address)


def test_bind_without_permission(sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel lets no ordinary user write the attributes, and a kernel that is locked down not even root."""

    def refuse(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(path), text)

    sysfs.add(SLOT, driver="ixgbe")
    monkeypatch.setattr("ixy.bus.pci.write_attribute", refuse)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(PermissionDenied, match=r"no permission to write driver/unbind: run as root \(sudo\)"):
        unbind(SLOT)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(PermissionDenied, match="the kernel refuses even root"):
        unbind(SLOT)
