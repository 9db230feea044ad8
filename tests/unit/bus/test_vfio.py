"""The parts of the VFIO bus that need no kernel: where I/O addresses are, and who may use a card."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from fake_sysfs import FakeSysfs
from hypothesis import given
from hypothesis import strategies as st

from ixy.bus import Irq, container, vfio
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


# ---------------------------------------------------------------------------------------------------------------------
# Two cards of one process, on a kernel that is a few functions

OTHER = "0000:04:00.0"
VIABLE = 1 << 0
REGION_BYTES = 4096


class Kernel:
    """What ioctl(2) does, by the numbers of include/uapi/linux/vfio.h: groups, one container, regions.

    Attributes:
        calls: the numbers of the requests that came.
        mapped: what the devices see: first I/O address and size.
    """

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.mapped: set[tuple[int, int]] = set()
        self._answers: dict[int, Callable[[Any], Any]] = {
            0x3B67: lambda _: struct.pack("<II", 8, VIABLE),
            0x3B68: lambda _: 0,
            0x3B66: lambda _: 0,
            0x3B70: self._info,
            0x3B71: self._map,
            0x3B72: self._unmap,
            0x3B6A: lambda _: os.memfd_create("device"),
            0x3B6C: lambda _: struct.pack("<IIIIQQ", 32, 0b111, 0, 0, REGION_BYTES, 0),
        }

    def ioctl(self, fd: int, request: int, argument: Any = 0) -> Any:
        os.fstat(fd)
        self.calls.append(request)
        return self._answers[request](argument)

    def _info(self, argument: Any) -> bytes:
        if isinstance(argument, bytearray):
            argument[:] = iommu_info(0, 0, b"")
        return iommu_info(0, 0, b"")

    def _map(self, argument: bytes) -> int:
        _, _, _, address, size = struct.unpack("<IIQQQ", argument)
        if (address, size) in self.mapped:
            raise OSError(errno.EEXIST, "File exists")
        self.mapped.add((address, size))
        return 0

    def _unmap(self, argument: bytes) -> bytes:
        _, _, address, size = struct.unpack("<IIQQ", argument)
        self.mapped.remove((address, size))
        return argument


@pytest.fixture
def kernel(sysfs: FakeSysfs, group: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """Two cards, each in a group of its own, both bound to vfio-pci."""
    device = sysfs.add(OTHER, driver="vfio-pci")
    (sysfs.root / "kernel/iommu_groups/18/devices").mkdir(parents=True)
    (device / "iommu_group").symlink_to(sysfs.root / "kernel/iommu_groups/18")
    for name in ("vfio", "18"):
        (group.parent / name).touch()
    kernel = Kernel()
    space = container.Container()
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    monkeypatch.setattr(vfio, "container", lambda: space)
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    yield kernel
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


class Piece:
    """A piece of DMA memory that nobody touches."""

    size = 2 << 20
    page_size = 4096

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.virtual_address = 0x7F0000000000 + offset


def test_memory_of_two_cards_is_mapped_until_both_have_let_it_go(kernel: Kernel) -> None:
    """One I/O address for both, which the IOMMU translates. Whichever is asked first to forget it, and however often,
    the other one keeps it.
    """
    for first, second in ((0, 1), (1, 0)):
        cards = [VfioFunction(SLOT), VfioFunction(OTHER)]
        shared, own = Piece(0), Piece(2 << 20)
        mappings = [card.map(shared) for card in cards]  # type: ignore[arg-type]
        assert [mapping.translated for mapping in mappings] == [True, True]
        assert mappings[0].pages.tolist() == mappings[1].pages.tolist() == list(range(GIB, GIB + (2 << 20), 4096))
        cards[second].map(own)  # type: ignore[arg-type]
        both = {(GIB, 2 << 20), (GIB + (2 << 20), 2 << 20)}
        assert kernel.mapped == both
        cards[first].unmap(shared)  # type: ignore[arg-type]
        cards[first].unmap(shared)  # type: ignore[arg-type]
        assert kernel.mapped == both
        cards[first].close()
        assert kernel.mapped == both
        cards[second].close()
        assert kernel.mapped == set()


def test_a_card_that_is_closed_takes_no_memory_from_the_other(kernel: Kernel) -> None:
    """It is closed with memory that it shares still mapped, and once more: the other card keeps it."""
    one, other = VfioFunction(SLOT), VfioFunction(OTHER)
    for card in (one, other):
        card.map(Piece(0))  # type: ignore[arg-type]
    one.close()
    one.close()
    assert kernel.mapped == {(GIB, 2 << 20)}
    other.close()
    assert kernel.mapped == set()


def test_a_container_is_given_up_with_its_last_card(kernel: Kernel) -> None:
    """The next card begins with a new one."""
    set_iommu = 0x3B66
    for opened in (1, 2):
        VfioFunction(SLOT).close()
        assert kernel.calls.count(set_iommu) == opened


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_keeps_no_card_open(kernel: Kernel) -> None:
    """None of the files of a card, its group and the container are left in a forked child, and closing says nothing to
    the kernel; the parent's card goes on.
    """
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    function = VfioFunction(SLOT)
    function.map(Piece(0))  # type: ignore[arg-type]
    function.bar(0)
    calls = len(kernel.calls)
    child = os.fork()
    if child == 0:
        try:
            left = set(os.listdir("/proc/self/fd")) - before  # noqa: PTH208
            function.close()
            os._exit(len(left) + len(kernel.calls) - calls)
        except BaseException:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert function.config_read(0, 2) == 0
    function.close()
    assert kernel.mapped == set()


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
