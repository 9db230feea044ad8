"""What of the VirtIO driver needs no device: negotiation, addresses, PCI capabilities."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from ixy.drivers.virtio.features import FEATURES, Features, negotiate
from ixy.drivers.virtio.transports.pci_modern import Capability, capabilities
from ixy.drivers.virtio.transports.vhost_user import VhostUser, parse
from ixy.errors import AddressError, UnsupportedDevice
from ixy.registers import virtio as reg


def bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


def test_no_bit_is_listed_twice() -> None:
    assert len({feature.bit for feature in FEATURES}) == len({feature.name for feature in FEATURES}) == len(FEATURES)


def test_what_is_refused_is_logged_by_name(caplog: pytest.LogCaptureFixture) -> None:
    """Of VERSION_1, IN_ORDER, CSUM, INDIRECT_DESC and the unknown bit 49, the driver takes the first two."""
    caplog.set_level(logging.INFO, "ixy.virtio")
    offered = bits(reg.VERSION_1, reg.IN_ORDER, reg.CSUM, reg.INDIRECT_DESC, 49)
    assert negotiate("card", offered) == bits(reg.VERSION_1, reg.IN_ORDER)
    assert "card: accepts VERSION_1, IN_ORDER" in caplog.text
    assert "card: refuses CSUM, INDIRECT_DESC, bit 49" in caplog.text


def test_where_nothing_is_refused_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ixy.virtio")
    assert negotiate("card", bits(reg.VERSION_1)) == bits(reg.VERSION_1)
    assert caplog.messages == ["card: accepts VERSION_1"]


def test_what_needs_the_control_queue_is_refused_without_it() -> None:
    offered = bits(reg.VERSION_1, reg.CTRL_RX, reg.CTRL_VLAN, reg.CTRL_MAC_ADDR)
    assert negotiate("card", offered) == bits(reg.VERSION_1)
    assert negotiate("card", offered | bits(reg.CTRL_VQ)) == offered | bits(reg.CTRL_VQ)


def test_a_feature_that_the_user_does_not_want_is_refused() -> None:
    offered = bits(reg.VERSION_1, reg.RING_PACKED)
    assert negotiate("card", offered, unwanted=bits(reg.RING_PACKED)) == bits(reg.VERSION_1)


def test_a_header_without_a_place_before_the_packet_is_not_supported() -> None:
    """A legacy device without ANY_LAYOUT wants a header in a descriptor of its own (2.7.4.2)."""
    with pytest.raises(UnsupportedDevice, match="neither VERSION_1 nor ANY_LAYOUT"):
        negotiate("card", bits(reg.MAC))
    assert negotiate("card", bits(reg.MAC, reg.ANY_LAYOUT)) == bits(reg.MAC, reg.ANY_LAYOUT)


def test_a_device_that_insists_on_the_platforms_addresses() -> None:
    """6.1: ACCESS_PLATFORM is accepted where it is offered; a device whose offer is declined need not work."""
    offered = bits(reg.VERSION_1, reg.ACCESS_PLATFORM)
    assert negotiate("card", offered) == offered
    with pytest.raises(UnsupportedDevice, match="card: the device insists on ACCESS_PLATFORM"):
        negotiate("card", offered, unwanted=bits(reg.ACCESS_PLATFORM))


def test_features_have_names() -> None:
    assert Features(bits(reg.MAC, reg.VERSION_1, 62, 45)).names() == ["MAC", "VERSION_1", "bit 45", "STANDBY"]


@pytest.mark.parametrize(
    ("address", "path", "unwanted"),
    [
        ("vhost-user:/run/vm.sock", "/run/vm.sock", 0),
        ("vhost-user:/run/vm.sock,ring=packed", "/run/vm.sock", 0),
        ("vhost-user:vm,ring=split", "vm", 1 << 34),
    ],
)
def test_vhost_user_addresses(address: str, path: str, unwanted: int) -> None:
    assert parse(address) == (path, unwanted)


@pytest.mark.parametrize("address", ["vhost-user:", "vhost-user:/a,ring=round", "vhost-user:/a,size=3"])
def test_malformed_vhost_user_addresses(address: str) -> None:
    with pytest.raises(AddressError, match=address.partition(",")[0]):
        parse(address)


def test_nobody_listens() -> None:
    with pytest.raises(AddressError, match=r"no back end listens there.*start it first"):
        VhostUser("vhost-user:/nowhere/at/all")


def function_with(config: bytes) -> SimpleNamespace:
    """A PCI function that has but a configuration space."""
    return SimpleNamespace(
        address="card", config_read=lambda offset, size: int.from_bytes(config[offset : offset + size], "little")
    )


def config_space(*entries: bytes, first: int = 0x40) -> bytes:
    """A configuration space with capabilities from `first` on, which carry the position of the next one themselves."""
    config = bytearray(256)
    config[0x06] = 1 << 4
    config[0x34] = first
    config[first : first + sum(map(len, entries))] = b"".join(entries)
    return bytes(config)


def virtio_capability(following: int, kind: int, bar: int, offset: int, length: int, multiplier: int = 0) -> bytes:
    """20 bytes as in 4.1.4: id 9, next, length, type, BAR, id, padding, offset, length, multiplier."""
    numbers = b"".join(number.to_bytes(4, "little") for number in (offset, length, multiplier))
    return bytes([9, following, 20, kind, bar, 0, 0, 0]) + numbers


def test_structures_are_found_by_their_capabilities() -> None:
    """Common configuration, a second one that is ignored, MSI-X in between, notifications, one in a reserved BAR."""
    config = config_space(
        virtio_capability(0x54, 1, 4, 0, 56),
        virtio_capability(0x68, 1, 2, 0x100, 56),
        bytes([0x11, 0x70, 0, 0, 0, 0, 0, 0]),
        virtio_capability(0x84, 2, 4, 0x3000, 0x1000, 4),
        virtio_capability(0, 4, 7, 0, 64),
    )
    assert capabilities(function_with(config)) == {  # type: ignore[arg-type]
        1: Capability(4, 0, 56, 0),
        2: Capability(4, 0x3000, 0x1000, 4),
    }


def test_a_list_of_capabilities_that_runs_in_a_circle_ends() -> None:
    config = config_space(virtio_capability(0x40, 1, 4, 0, 56))
    assert capabilities(function_with(config)) == {1: Capability(4, 0, 56, 0)}  # type: ignore[arg-type]


def test_a_device_without_capabilities_is_a_legacy_one() -> None:
    assert capabilities(function_with(bytes(256))) == {}  # type: ignore[arg-type]
