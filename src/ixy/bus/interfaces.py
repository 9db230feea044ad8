"""The kernel's network interfaces on a device, and whether somebody uses them.

Taking a card from the kernel cuts off whoever works through it, perhaps the user who is logged in over it. So a card
is in use while one of its interfaces, or a bridge, bond or VLAN above it, is up with an address or carries a route.
What the kernel gives by itself to every interface that is up, the IPv6 link-local and multicast routes and the
link-local address, does not count.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path

from ixy.bus.pci import PciDevice
from ixy.errors import DeviceBusy

PROC_NET = Path("/proc/net")

_IFF_UP = 1
_SIOCGIFADDR = 0x8915
_LINK_SCOPE = 0x20
_KERNEL_PREFIXES = ("fe8", "fe9", "fea", "feb", "ff")  # fe80::/10 and ff00::/8


def interfaces(device: PciDevice) -> list[Path]:
    """The sysfs directories of the device's interfaces in this network namespace; VirtIO has a bus of its own below."""
    return sorted([*device.path.glob("net/*"), *device.path.glob("virtio*/net/*")])


def use(device: PciDevice) -> str | None:
    """How the kernel's network stack uses the device, in words; None if it does not."""
    found = interfaces(device)
    if not found and [*device.path.glob("net"), *device.path.glob("virtio*/net")]:
        return "its interface lives in another network namespace"
    return next(filter(None, map(interface_use, found)), None)


def refuse_if_used(device: PciDevice) -> None:
    """Raises DeviceBusy if the kernel's network stack uses the device; says which interface, and how."""
    words = use(device)
    if words is not None:
        raise DeviceBusy(f"{device.address}: {words}; take it all the same with --force")


def interface_use(interface: Path) -> str | None:
    """How the kernel's network stack uses an interface, by its sysfs directory, in words; None if it does not."""
    name = interface.name
    address = _ipv4_address(name) or _ipv6_address(name)
    if address and _is_up(interface):
        return f"interface {name} is up with address {address}"
    if _carries_ipv4_route(name) or _carries_ipv6_route(name):
        return f"interface {name} carries a route"
    above = sorted(interface.glob("upper_*"))
    return next((f"{words}, above {name}" for words in map(interface_use, map(Path.resolve, above)) if words), None)


def _is_up(interface: Path) -> bool:
    """Without its directory, as where /sys is another network namespace's, it counts as up."""
    flags = interface / "flags"
    return not flags.exists() or bool(int(flags.read_text(), 16) & _IFF_UP)


def _ipv4_address(name: str) -> str | None:
    """The interface's first IPv4 address, by netdevice(7)'s struct ifreq."""
    request = struct.pack("40s", os.fsencode(name))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            reply = fcntl.ioctl(any_socket, _SIOCGIFADDR, request)
        except OSError:  # it has none
            return None
    return socket.inet_ntoa(reply[20:24])


def _rows(table: str) -> list[list[str]]:
    """A table of /proc/net, empty where the kernel has no such protocol."""
    path = PROC_NET / table
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def _ipv6_address(name: str) -> str | None:
    """The interface's first IPv6 address of more than link scope."""
    for address, _index, _length, scope, _flags, interface in _rows("if_inet6"):
        if interface == name and int(scope, 16) != _LINK_SCOPE:
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))
    return None


def _carries_ipv4_route(name: str) -> bool:
    return any(row[0] == name for row in _rows("route")[1:])


def _carries_ipv6_route(name: str) -> bool:
    return any(row[-1] == name and not row[0].startswith(_KERNEL_PREFIXES) for row in _rows("ipv6_route"))
