"""The process's IOMMU address space: what all its devices see of its memory.

The kernel hands devices out by *group*, the smallest set that the IOMMU can tell apart. A *container* is an address
space that groups join. One container serves all devices of the process, so memory that several of them use is mapped
and pinned once.

Sources: Documentation/driver-api/vfio.rst and include/uapi/linux/vfio.h of the Linux kernel.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import re
import resource
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ixy.bus.pci import PciDevice, explained
from ixy.errors import DeviceBusy, Error, MemoryUnavailable, PermissionDenied, UnsupportedDevice
from ixy.once import once
from ixy.packets.dma import DmaMapping, DmaMemory, allocated, window
from ixy.process import forget_in_child

VFIO = Path("/dev/vfio")
STATUS = Path("/proc/self/status")

# ioctl(2) numbers and structures; each of the latter begins with its size
_SET_IOMMU = 0x3B66
_GROUP_GET_STATUS = 0x3B67
_GROUP_SET_CONTAINER = 0x3B68
_IOMMU_GET_INFO = 0x3B70
_IOMMU_MAP_DMA = 0x3B71
_IOMMU_UNMAP_DMA = 0x3B72
_TYPE1_V2 = 3
_GROUP_STATUS = struct.Struct("=II")  # size, flags
_GROUP_VIABLE = 1 << 0
_INFO = struct.Struct("=IIQII")  # size, flags, page sizes, offset of the first capability, padding
_INFO_CAPABILITIES = 1 << 1
_CAPABILITY = struct.Struct("=HHI")  # id, version, offset of the next
_RANGES = struct.Struct("=II")  # after the capability's head: number of ranges, padding
_RANGE = struct.Struct("=QQ")  # first and last address
_CAPABILITY_RANGES = 1
_MAP = struct.Struct("=IIQQQ")  # size, flags, virtual address, I/O address, size in bytes
_READ_WRITE = 1 << 0 | 1 << 1
_UNMAP = struct.Struct("=IIQQ")  # size, flags, I/O address, size in bytes

# Where the window of DMA memory may begin. I/O address 0 is never used: a forgotten address is refused.
_ALIGNMENT = 1 << 30


def group_of(device: PciDevice) -> int:
    """The number of the device's IOMMU group.

    Raises:
        UnsupportedDevice: no IOMMU stands before the device.
    """
    link = device.path / "iommu_group"
    if not link.exists():
        raise UnsupportedDevice(
            f"{device.address}: no IOMMU stands before it, and vfio-pci needs one: switch it on in the firmware and by "
            f"the kernel's parameters (intel_iommu=on), or run: sudo ixy unbind {device.address}"
        )
    return int(link.resolve().name)


def group_file(device: PciDevice) -> Path:
    """The file by which the device's group is taken. Who may open it may use the group."""
    return VFIO / str(group_of(device))


@dataclass
class Group:
    """A group in the container: its number, its file descriptor, and how many of its devices are open."""

    number: int
    fd: int
    devices: int = 0


@dataclass
class _Mapping:
    """Memory that devices see, and how many of them asked for it."""

    memory: DmaMemory
    devices: int = 0


class Container:
    """An IOMMU address space. The window of DMA memory lies in it as in the process, from another base on."""

    def __init__(self) -> None:
        self._be_empty()
        forget_in_child(self)

    def _be_empty(self) -> None:
        self._lock = threading.Lock()
        self._fd = -1
        self._base = 0
        self._groups: dict[int, Group] = {}
        self._mappings: dict[int, _Mapping] = {}  # by offset in the window

    def forget(self) -> None:
        """A child has no devices yet, and may open some of its own; see `ixy.process.Inheritance`."""
        files = [group.fd for group in self._groups.values()] + ([self._fd] if self._fd >= 0 else [])
        self._be_empty()
        for fd in files:
            os.close(fd)

    def join(self, device: PciDevice) -> Group:
        """Take the device's group in, until `leave`.

        Raises:
            UnsupportedDevice: no IOMMU stands before the device.
            PermissionDenied: the group's file is out of this user's reach.
            DeviceBusy: another process has the group, or a kernel driver one of its other devices.
        """
        number = group_of(device)
        with self._lock:
            if number not in self._groups:
                self._groups[number] = Group(number, self._take(device))
            self._groups[number].devices += 1
            return self._groups[number]

    def leave(self, group: Group) -> None:
        """A device of the group was closed; the group is given up with the last one."""
        with self._lock:
            group.devices -= 1
            if group.devices == 0:
                del self._groups[group.number]
                os.close(group.fd)
                self._close_if_empty()

    def map(self, memory: DmaMemory, address: str) -> DmaMapping:
        """Let all devices reach `memory`, which stays pinned until as many calls of `unmap`.

        Args:
            address: of the device that asks, for messages.

        Raises:
            MemoryUnavailable: the process may not lock so much memory.
        """
        with self._lock:
            if memory.offset not in self._mappings:
                self._map(memory, self._base + memory.offset, address)
                self._mappings[memory.offset] = _Mapping(memory)
            self._mappings[memory.offset].devices += 1
        return DmaMapping.linear(memory, self._base, translated=True)

    def unmap(self, memory: DmaMemory) -> None:
        """Undo one `map`; with the last one, a device that still uses the memory is refused."""
        with self._lock:
            mapping = self._mappings[memory.offset]
            mapping.devices -= 1
            if mapping.devices == 0:
                del self._mappings[memory.offset]
                request = _UNMAP.pack(_UNMAP.size, 0, self._base + memory.offset, memory.size)
                fcntl.ioctl(self._fd, _IOMMU_UNMAP_DMA, request)

    def _take(self, device: PciDevice) -> int:
        """Open the device's group and put it into the container, which begins with its first group."""
        fd = _open_group(device)
        try:
            _refuse_if_shared(device, fd)
            with explained(device.address, "use its IOMMU group"):
                if not self._groups:
                    self._fd = os.open(VFIO / "vfio", os.O_RDWR | os.O_CLOEXEC)
                fcntl.ioctl(fd, _GROUP_SET_CONTAINER, struct.pack("i", self._fd))
                if not self._groups:
                    fcntl.ioctl(self._fd, _SET_IOMMU, _TYPE1_V2)
                    self._base = place(_io_ranges(self._fd), window().size, device.address)
        except BaseException:
            os.close(fd)
            self._close_if_empty()
            raise
        return fd

    def _close_if_empty(self) -> None:
        if not self._groups and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _map(self, memory: DmaMemory, first: int, address: str) -> None:
        request = _MAP.pack(_MAP.size, _READ_WRITE, memory.virtual_address, first, memory.size)
        try:
            with explained(address, f"map {memory.size} bytes of memory"):
                fcntl.ioctl(self._fd, _IOMMU_MAP_DMA, request)
        except Error as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOMEM:
                raise MemoryUnavailable(f"{address}: {_shortage(memory.size)}") from error
            raise


@once
def container() -> Container:
    """The container of this process."""
    return Container()


def _open_group(device: PciDevice) -> int:
    path = group_file(device)
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError as error:
        user = pwd.getpwuid(os.getuid()).pw_name
        advice = f"run: sudo ixy bind --user {user} {device.address}"
        raise PermissionDenied(f"{device.address}: no permission to open {path}; {advice}") from error
    except OSError as error:
        if error.errno == errno.EBUSY:
            reason = f"another process has its IOMMU group ({path}) open"
            raise DeviceBusy(f"{device.address}: {reason}{_others(device)}") from error
        raise Error(f"{device.address}: cannot open {path}: {error.strerror}") from error


def _refuse_if_shared(device: PciDevice, fd: int) -> None:
    """A group whose other devices the kernel uses is not to be had: they could reach each other's memory."""
    with explained(device.address, "use its IOMMU group"):
        reply = fcntl.ioctl(fd, _GROUP_GET_STATUS, _GROUP_STATUS.pack(_GROUP_STATUS.size, 0))
    _, flags = _GROUP_STATUS.unpack(reply)
    if not flags & _GROUP_VIABLE:
        raise DeviceBusy(
            f"{device.address}: the kernel uses a device that the IOMMU cannot tell from it{_others(device)}; "
            "bind each of them to vfio-pci"
        )


def _others(device: PciDevice) -> str:
    """The other devices of the group and their drivers, in brackets."""
    slots = sorted(path.name for path in (device.path / "iommu_group/devices").iterdir())
    others = [PciDevice(slot) for slot in slots if slot != device.slot]
    words = ", ".join(f"{other.slot}, driver {other.driver or 'none'}" for other in others)
    return f" ({words})" if words else ""


def _shortage(size: int) -> str:
    """Why the kernel does not pin `size` bytes more."""
    locked = int(re.findall(r"VmLck:\s*(\d+) kB", STATUS.read_text())[0]) << 10
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    needed = max(locked + size, allocated())  # what is not mapped yet most likely will be
    if limit == resource.RLIM_INFINITY or needed <= limit:
        return f"the kernel has no memory to map {size} bytes"
    advice = f"sudo prlimit --pid $$ --memlock={needed}"
    return f"the limit on locked memory is {limit} bytes, but {needed} are needed; run: {advice}"


def _io_ranges(fd: int) -> list[tuple[int, int]]:
    """First and last address of each range that the IOMMU translates, without what is reserved, such as for MSI."""
    size, *_ = _INFO.unpack(fcntl.ioctl(fd, _IOMMU_GET_INFO, _INFO.pack(_INFO.size, 0, 0, 0, 0)))
    reply = bytearray(_INFO.pack(size, 0, 0, 0, 0).ljust(size, b"\0"))
    fcntl.ioctl(fd, _IOMMU_GET_INFO, reply)
    return usable_ranges(bytes(reply))


def usable_ranges(info: bytes) -> list[tuple[int, int]]:
    """The ranges in the kernel's answer to VFIO_IOMMU_GET_INFO; all there are if it names none (before Linux 5.4)."""
    _, flags, _, offset, _ = _INFO.unpack_from(info)
    while flags & _INFO_CAPABILITIES and offset:
        kind, _, following = _CAPABILITY.unpack_from(info, offset)
        if kind == _CAPABILITY_RANGES:
            count, _ = _RANGES.unpack_from(info, offset + _CAPABILITY.size)
            start = offset + _CAPABILITY.size + _RANGES.size
            return list(_RANGE.iter_unpack(info[start : start + count * _RANGE.size]))
        offset = following
    return [(0, (1 << 64) - 1)]


def place(ranges: Iterable[tuple[int, int]], size: int, address: str) -> int:
    """The lowest I/O address at which `size` bytes lie within one of `ranges`: a multiple of 1 GiB, and not 0.

    Args:
        ranges: first and last address of each.
        address: of the device, for messages.

    Raises:
        MemoryUnavailable: there is none.
    """
    for first, last in sorted(ranges):
        start = max(_ALIGNMENT, -(-first // _ALIGNMENT) * _ALIGNMENT)
        if start + size - 1 <= last:
            return start
    raise MemoryUnavailable(f"{address}: the IOMMU has no room for {size} bytes of addresses")
