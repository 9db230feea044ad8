"""A network interface of the kernel: what it is, whether it may be taken, and who may."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import struct
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from ixy.bus import Slot
from ixy.bus.interfaces import interface_use
from ixy.bus.pci import PciDevice
from ixy.drivers.linux.netlink import LinkInfo, Questions, link_by_name
from ixy.errors import AddressError, DeviceBusy, Error, PermissionDenied

_CLASS = Path("/sys/class/net")
_NOWHERE = Path("/dev/null")  # where no interface can have a directory
_MAX_NAME = 15  # IFNAMSIZ, without the zero at the end

# Of packet(7), which not every Python has
SOL_PACKET = 263
_ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 1, 2
_MR_MULTICAST, _MR_PROMISC, _MR_UNICAST = 0, 1, 3
_MREQ = struct.Struct("=iHH8s")


def check_name(address: str, name: str) -> None:
    """Refuse what no interface can be called.

    Raises:
        AddressError: says what to write.
    """
    if not 0 < len(os.fsencode(name)) <= _MAX_NAME or "/" in name or any(map(str.isspace, name)):
        raise AddressError(f"{address}: {name!r} is no interface's name: write one of those that `ip link` shows")


def _shows(link: LinkInfo) -> bool:
    """Whether /sys has this interface. As another network namespace's it may have a different one of the same name."""
    directory = _CLASS / link.name
    try:
        index, address = ((directory / name).read_text().strip() for name in ("ifindex", "address"))
    except OSError:
        return False
    return (int(index), address) == (link.number, link.mac.hex(":"))


class Interface:
    """An interface, known by its number: its name may change.

    Args:
        address: of the device, for messages.
        name: as the user wrote it.

    Raises:
        AddressError: there is none.
    """

    def __init__(self, address: str, name: str) -> None:
        self._address = address
        found = link_by_name(name)
        if found is None:
            there = ", ".join(sorted(each for _, each in socket.if_nameindex()))
            raise AddressError(f"{address}: no interface {name}: there are {there}")
        self.index = found.number
        self.first = found
        self._class = _CLASS if _shows(found) else _NOWHERE
        self._questions: Questions | None = None

    def keep_asking(self) -> None:
        """Open what `now` asks by, until `close`: a process that has given privileges up opens no more sockets."""
        self._questions = self._questions or Questions()

    def close(self) -> None:
        if self._questions is not None:
            self._questions.close()
            self._questions = None

    def now(self) -> LinkInfo:
        """What the kernel says of it now. One thread at a time asks.

        Raises:
            Error: it is gone.
        """
        with nullcontext(self._questions) if self._questions else Questions() as questions:
            found = questions.by_index(self.index)
        if found is None:
            raise Error(f"{self._address}: the interface is gone: it was removed, or moved to another namespace")
        return found

    def refuse_if_used(self, remedy: str) -> None:
        """
        Raises:
            DeviceBusy: the kernel's network stack uses it; says how, and the remedy.
        """
        words = interface_use(self._class / self.first.name)
        if words is not None:
            raise DeviceBusy(f"{self._address}: {words}: {remedy}")

    def speed(self) -> int:
        """In Mbit/s; 0 where the kernel does not know, and of a virtual interface, which has no wire: what that is said
        to have, 10 of a TAP, 10,000 of a veth, limits nothing."""
        directory = self._class / self.now().name
        try:
            return max(int((directory / "speed").read_text()), 0) if (directory / "device").exists() else 0
        except (OSError, ValueError):
            return 0

    def rx_queues(self) -> int:
        """How many receive queues it has, 1 where that cannot be found out."""
        return self._queues("rx")

    def tx_queues(self) -> int:
        """Likewise, of transmit queues."""
        return self._queues("tx")

    def _queues(self, way: str) -> int:
        return max(len([*(self._class / self.first.name / "queues").glob(f"{way}-*")]), 1)

    def model(self) -> str:
        """What it is: the kernel driver of its device, or the kind of a virtual one."""
        driver = self._class / self.first.name / "device/driver"
        return driver.resolve().name if driver.exists() else self.first.virtual or "virtual"

    def slot(self, bus: str) -> Slot:
        """Where its device is plugged in, for who reaches it by `bus`."""
        for place in (self._class / self.first.name / "device").resolve().parts[::-1]:
            with suppress(AddressError):
                return PciDevice(place).slot_in(bus)
        return Slot(bus)


class Membership:
    """What an interface lets in besides what is for this station, as long as this process wants it.

    A socket that receives nothing stands for it, so it ends with the process.

    Attributes:
        sock: the socket.
    """

    def __init__(self, interface: Interface) -> None:
        self._index = interface.index
        self._filtered: list[bytes] = []
        self._promiscuous = False
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)

    def promiscuous(self, enabled: bool) -> None:
        """Let all packets in."""
        if enabled != self._promiscuous:
            self._change(_ADD_MEMBERSHIP if enabled else _DROP_MEMBERSHIP, _MR_PROMISC, b"")
            self._promiscuous = enabled

    def filter(self, addresses: Sequence[bytes]) -> None:
        """Let packets for these addresses in, in place of those before."""
        for mac in self._filtered:
            self._change(_DROP_MEMBERSHIP, _MR_MULTICAST if mac[0] & 1 else _MR_UNICAST, mac)
        self._filtered = []
        for mac in addresses:
            self._change(_ADD_MEMBERSHIP, _MR_MULTICAST if mac[0] & 1 else _MR_UNICAST, mac)
            self._filtered.append(mac)

    def _change(self, how: int, kind: int, mac: bytes) -> None:
        self.sock.setsockopt(SOL_PACKET, how, _MREQ.pack(self._index, kind, len(mac), mac))

    def close(self) -> None:
        self.sock.close()


@contextmanager
def explained(address: str, doing: str, capabilities: str) -> Generator[None]:
    """Turn what the kernel says while `doing` something into one of ixy's errors.

    Args:
        capabilities: what it takes, as setpriv(1) wants it: "+net_raw".
    """
    try:
        yield
    except PermissionError as error:
        raise PermissionDenied(f"{address}: no permission to {doing}: {remedy(capabilities)}") from error
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            raise Error(f"{address}: the interface is gone") from error
        raise Error(f"{address}: cannot {doing}: {error.strerror}") from error


def remedy(capabilities: str) -> str:
    """How to have the rights that it takes, as setpriv(1) wants them: "+net_raw"."""
    if os.geteuid() == 0:
        return "the kernel refuses even root; is this a container, or a user namespace?"
    command = shlex.join(sys.orig_argv)
    return (
        f"run as root (sudo), or as yourself with the rights that it takes: sudo setpriv --reuid {os.getuid()} --regid "
        f"{os.getgid()} --init-groups --inh-caps {capabilities} --ambient-caps {capabilities} {command}"
    )
