"""When the kernel's network stack uses a card. Interface names are made up, so that only the tables here know them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ixy.bus.interfaces import interfaces, use
from ixy.bus.pci import PciDevice

if TYPE_CHECKING:
    from fake_sysfs import FakeSysfs

SLOT = "0000:03:00.0"

ROUTE_HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
LINK_LOCAL = "fe800000000000000000000000000001"
GLOBAL = "20010db8000000000000000000000001"


def route(destination: str, length: int) -> str:
    """A line of /proc/net/ipv6_route for interface fake0."""
    return f"{destination} {length:02x} {'0' * 32} 00 {'0' * 32} 00000100 00000001 00000000 00000001    fake0\n"


@pytest.fixture
def card(sysfs: FakeSysfs) -> Path:
    return sysfs.add(SLOT, driver="ixgbe")


def test_no_interface(card: Path) -> None:
    """A card whose driver is not bound has no `net` at all."""
    assert not (card / "net").exists()
    assert use(PciDevice(SLOT)) is None


@pytest.mark.parametrize("up", [False, True])
def test_idle_interface(sysfs: FakeSysfs, card: Path, up: bool) -> None:
    """Up or down, what the kernel gives by itself does not count: link-local address and route, multicast route."""
    sysfs.add_interface(card, "fake0", up=up)
    (sysfs.root / "net/if_inet6").write_text(f"{LINK_LOCAL} 02 40 20 80    fake0\n")
    routes = route(LINK_LOCAL, 128) + route("fe80" + "0" * 28, 64) + route("ff" + "0" * 30, 8)
    (sysfs.root / "net/ipv6_route").write_text(routes)
    (sysfs.root / "net/route").write_text(ROUTE_HEADER)
    assert use(PciDevice(SLOT)) is None


def test_ipv6_address(sysfs: FakeSysfs, card: Path) -> None:
    """A global address counts, behind a link-local one and beside other interfaces' ones."""
    sysfs.add_interface(card, "fake0", up=True)
    rows = f"{GLOBAL[:-1]}2 01 40 00 80    other0\n{LINK_LOCAL} 02 40 20 80    fake0\n{GLOBAL} 02 40 00 80    fake0\n"
    (sysfs.root / "net/if_inet6").write_text(rows)
    assert use(PciDevice(SLOT)) == "interface fake0 is up with address 2001:db8::1"


def test_ipv4_address(sysfs: FakeSysfs, card: Path) -> None:
    """127.0.0.1 of the machine's own loopback interface, which here plays the card's interface."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 0))
        except OSError:
            pytest.skip("the loopback interface is down: there is no IPv4 address to be found")
    sysfs.add_interface(card, "lo", up=True)
    assert use(PciDevice(SLOT)) == "interface lo is up with address 127.0.0.1"


def test_address_of_an_interface_that_is_down(sysfs: FakeSysfs, card: Path) -> None:
    """Nobody works through an interface that is down, whatever its address."""
    sysfs.add_interface(card, "fake0", up=False)
    sysfs.add_address("fake0")
    assert use(PciDevice(SLOT)) is None


@pytest.mark.parametrize("destination", ["00000000", "0002A8C0"])
def test_ipv4_route(sysfs: FakeSysfs, card: Path, destination: str) -> None:
    """The default route, or one to a network."""
    sysfs.add_interface(card, "fake0", up=True)
    row = f"fake0\t{destination}\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    (sysfs.root / "net/route").write_text(ROUTE_HEADER + row)
    assert use(PciDevice(SLOT)) == "interface fake0 carries a route"


@pytest.mark.parametrize(("destination", "length"), [("0" * 32, 0), (GLOBAL[:16] + "0" * 16, 64)])
def test_ipv6_route(sysfs: FakeSysfs, card: Path, destination: str, length: int) -> None:
    """The default route, or one to a network."""
    sysfs.add_interface(card, "fake0", up=True)
    (sysfs.root / "net/ipv6_route").write_text(route(destination, length))
    assert use(PciDevice(SLOT)) == "interface fake0 carries a route"


def test_second_interface(sysfs: FakeSysfs, card: Path) -> None:
    """A card may have several interfaces; each is looked at."""
    sysfs.add_interface(card, "fake0", up=True)
    sysfs.add_interface(card, "fake1", up=True)
    sysfs.add_address("fake1")
    assert use(PciDevice(SLOT)) == "interface fake1 is up with address 2001:db8::1"


def test_virtio_interface(sysfs: FakeSysfs, card: Path) -> None:
    """A VirtIO card's interface lies below its VirtIO device."""
    sysfs.add_interface(card / "virtio2", "fake0", up=True)
    sysfs.add_address("fake0")
    assert [path.name for path in interfaces(PciDevice(SLOT))] == ["fake0"]
    assert use(PciDevice(SLOT)) == "interface fake0 is up with address 2001:db8::1"


def test_interface_below_a_bridge(sysfs: FakeSysfs, card: Path) -> None:
    """A bridge, bond or VLAN has the address; the card's interface has none, yet cutting it off cuts the bridge off."""
    interface = sysfs.add_interface(card, "fake0", up=True)
    bridge = sysfs.add_interface(sysfs.root / "virtual", "bridge0", up=True)
    (interface / "upper_bridge0").symlink_to(bridge)
    sysfs.add_address("bridge0")
    assert use(PciDevice(SLOT)) == "interface bridge0 is up with address 2001:db8::1, above fake0"


def test_interface_in_another_namespace(card: Path) -> None:
    """sysfs shows the directory but not the interface in it: who uses it cannot be seen from here."""
    (card / "net").mkdir()
    assert use(PciDevice(SLOT)) == "its interface lives in another network namespace"
