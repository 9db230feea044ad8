"""The parts of the VFIO bus that need no kernel: where I/O addresses are, and who may use a card."""

from __future__ import annotations

import os
import pwd
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fake_sysfs import FakeSysfs
from hypothesis import given
from hypothesis import strategies as st

from ixy.bus import Irq, container
from ixy.bus.binding import bind
from ixy.bus.container import place, usable_ranges
from ixy.bus.listing import network_devices
from ixy.bus.sysfs import SysfsFunction
from ixy.bus.vfio import VfioFunction
from ixy.errors import ConfigurationError, Error, MemoryUnavailable, PermissionDenied, UnsupportedDevice

SLOT = "0000:03:00.0"
GIB = 1 << 30

# What Linux 6.1 says of an emulated VT-d of 39 bits: the gap is where messages of interrupts go
VT_D = [(0, 0xFEDF_FFFF), (0xFEF0_0000, (1 << 39) - 1)]


def capability(kind: int, following: int, body: bytes) -> bytes:
    return struct.pack("<HHI", kind, 1, following) + body


def iommu_info(flags: int, first: int, tail: bytes) -> bytes:
    """struct vfio_iommu_type1_info, 24 bytes, and what follows it."""
    return struct.pack("<IIQII", 24 + len(tail), flags, 0x40201000, first, 0) + tail


def test_ranges_are_found_behind_other_capabilities() -> None:
    """Two capabilities: migration (2), whose body means nothing here, and the ranges (1)."""
    other = capability(2, 24 + 32, bytes(24))
    ranges = struct.pack("<II4Q", 2, 0, *VT_D[0], *VT_D[1])
    assert usable_ranges(iommu_info(0b11, 24, other + capability(1, 0, ranges))) == VT_D
    assert usable_ranges(iommu_info(0b11, 24, capability(2, 0, bytes(24)))) == [(0, (1 << 64) - 1)]
    assert usable_ranges(iommu_info(0b01, 0, b"")) == [(0, (1 << 64) - 1)]


def test_place_avoids_what_is_reserved() -> None:
    """3 GiB from 1 GiB on would reach into the gap below 4 GiB; 2 GiB do not."""
    assert place(VT_D, 2 * GIB, SLOT) == 1 * GIB
    assert place(VT_D, 3 * GIB, SLOT) == 4 * GIB
    with pytest.raises(MemoryUnavailable, match=f"{SLOT}: the IOMMU has no room for {1 << 39} bytes"):
        place(VT_D, 1 << 39, SLOT)


@given(
    st.lists(st.tuples(st.integers(0, 1 << 48), st.integers(0, 1 << 40)), max_size=5),
    st.integers(1, 16 * GIB),
)
def test_place_lies_within_a_range(starts: list[tuple[int, int]], size: int) -> None:
    """Any ranges: the place is aligned, not 0, inside of one; if there is none, no aligned place fits either."""
    ranges = [(first, first + length) for first, length in starts]
    try:
        found = place(ranges, size, SLOT)
    except MemoryUnavailable:
        for first, last in ranges:
            aligned = max(GIB, (first + GIB - 1) // GIB * GIB)
            assert aligned + size > last + 1
    else:
        assert found % GIB == 0
        assert found > 0
        assert any(first <= found and found + size <= last + 1 for first, last in ranges)


@pytest.fixture
def group(sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the IOMMU group, 17, of a card at SLOT."""
    device = sysfs.add(SLOT, driver="ixgbe")
    sysfs.add_driver("vfio-pci")
    (sysfs.root / "kernel/iommu_groups/17/devices").mkdir(parents=True)
    (device / "iommu_group").symlink_to(sysfs.root / "kernel/iommu_groups/17")
    monkeypatch.setattr(container, "VFIO", sysfs.root / "vfio")
    (sysfs.root / "vfio").mkdir()
    (sysfs.root / "vfio/17").touch(mode=0o600)
    return sysfs.root / "vfio/17"


def test_bind_for_a_user(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user becomes the owner of the group's file; the file's group stays."""
    given_to: list[tuple[Path, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, user, group: given_to.append((path, user, group)))
    bind(SLOT, "vfio-pci", user="nobody")
    assert given_to == [(group, pwd.getpwnam("nobody").pw_uid, -1)]


def test_bind_for_a_user_checks_before_it_acts(sysfs: FakeSysfs, group: Path) -> None:
    """No such user, or a driver that hands cards to root only: the card stays with its driver."""
    with pytest.raises(ConfigurationError, match="there is no user 'no-such-user'"):
        bind(SLOT, "vfio-pci", user="no-such-user")
    with pytest.raises(ConfigurationError, match="only root can use a card that is bound to uio_pci_generic"):
        bind(SLOT, "uio_pci_generic", user="nobody")
    assert sysfs.log == []
    assert group.stat().st_uid == os.geteuid()


def test_open_without_an_iommu(sysfs: FakeSysfs) -> None:
    """A card of no group: the error says what is missing. The lock is free again: the second try says the same."""
    sysfs.add(SLOT)
    for _ in range(2):
        with pytest.raises(UnsupportedDevice, match=f"{SLOT}: no IOMMU stands before it"):
            VfioFunction(SLOT)


def test_open_a_group_out_of_reach(group: Path, ordinary_user: Callable[[], AbstractContextManager[None]]) -> None:
    """The kernel refuses the group's file: the error says how to become its owner, and the lock is free again."""
    group.chmod(0)
    user = pwd.getpwuid(os.getuid()).pw_name
    for _ in range(2):
        with ordinary_user(), pytest.raises(PermissionDenied, match=f"run: sudo ixy bind --user {user} {SLOT}"):
            VfioFunction(SLOT)


def test_list_of_a_card_that_is_bound_for_a_user(
    sysfs: FakeSysfs, group: Path, ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    """Bound to vfio-pci, the group's file decides who can use a card, and not the files of root in sysfs."""
    bind(SLOT, "vfio-pci")
    (sysfs.root / "bus/pci/devices" / SLOT / "config").chmod(0o444)
    group.chmod(0o666)
    with ordinary_user():
        (info,) = network_devices({(0x8086, 0x10FB): "Intel 82599"})
    assert info.usable
    group.chmod(0)
    with ordinary_user():
        (info,) = network_devices({(0x8086, 0x10FB): "Intel 82599"})
    assert info.reason == "no permission: run as root (sudo), or ixy bind --user"


def test_open_what_is_no_group(group: Path) -> None:
    """An ordinary file in the place of the group's: an error of ours, with the device's address."""
    with pytest.raises(Error, match=f"{SLOT}: cannot use its IOMMU group: Inappropriate ioctl"):
        VfioFunction(SLOT)
    assert group.exists()


def test_sysfs_has_no_interrupts(sysfs: FakeSysfs) -> None:
    """A driver that asks finds none, and one that insists is told where to get them."""
    sysfs.add(SLOT)
    function = SysfsFunction(SLOT)
    assert [function.interrupt_vectors(kind) for kind in Irq] == [0, 0, 0]
    with pytest.raises(UnsupportedDevice, match=f"1 MSI-X interrupts: sysfs delivers none; .*ixy bind {SLOT}"):
        function.interrupts(Irq.MSIX, 1)
    function.close()


def test_sysfs_reset(sysfs: FakeSysfs) -> None:
    """A reset is a write to the attribute of that name."""
    device = sysfs.add(SLOT)
    (device / "reset").touch()
    function = SysfsFunction(SLOT)
    function.reset()
    assert sysfs.log[-1] == ("reset", "1")
    function.close()
