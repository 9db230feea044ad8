"""Which features the driver wants, requires and refuses, and why.

Sections are those of the Virtual I/O Device specification, version 1.2.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ixy.drivers.offloads import check_offloads
from ixy.errors import ConfigurationError, UnsupportedDevice
from ixy.registers import virtio as reg

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

log = logging.getLogger("ixy.virtio")


class Wish(Enum):
    """What the driver does with a feature."""

    REQUIRED = "without it the driver cannot work"
    WANTED = "accepted if offered"
    UNWANTED = "accepted only where somebody asks for what it does"


class Feature(NamedTuple):
    """A row: name, bit, section, what the driver does with it, and what must be negotiated with it."""

    name: str
    bit: int
    section: str
    wish: Wish
    needs: tuple[int, ...] = ()


_MODERN_CTRL = (reg.CTRL_VQ,)

FEATURES = [
    # The transport and the rings
    Feature("VERSION_1", reg.VERSION_1, "6.1", Wish.WANTED),
    Feature("ANY_LAYOUT", reg.ANY_LAYOUT, "6.3", Wish.WANTED),  # required without VERSION_1, see `negotiate`
    Feature("ACCESS_PLATFORM", reg.ACCESS_PLATFORM, "6.1", Wish.WANTED),
    Feature("RING_PACKED", reg.RING_PACKED, "2.8", Wish.WANTED, (reg.VERSION_1,)),
    Feature("IN_ORDER", reg.IN_ORDER, "2.7.9, 2.8.7", Wish.WANTED, (reg.VERSION_1,)),
    Feature("EVENT_IDX", reg.EVENT_IDX, "2.7.7, 2.8.10", Wish.WANTED),
    Feature("ORDER_PLATFORM", reg.ORDER_PLATFORM, "6.1", Wish.UNWANTED),
    Feature("INDIRECT_DESC", reg.INDIRECT_DESC, "2.7.5.3", Wish.UNWANTED),
    Feature("NOTIFY_ON_EMPTY", reg.NOTIFY_ON_EMPTY, "6.3", Wish.UNWANTED),
    Feature("SR_IOV", reg.SR_IOV, "6.1", Wish.UNWANTED),
    Feature("NOTIFICATION_DATA", reg.NOTIFICATION_DATA, "2.9", Wish.UNWANTED),
    Feature("NOTIF_CONFIG_DATA", reg.NOTIF_CONFIG_DATA, "4.1.5.2", Wish.UNWANTED),
    Feature("RING_RESET", reg.RING_RESET, "2.6.1", Wish.UNWANTED),
    # The network device
    Feature("MAC", reg.MAC, "5.1.3", Wish.WANTED),
    Feature("STATUS", reg.STATUS, "5.1.3", Wish.WANTED),
    Feature("MTU", reg.MTU, "5.1.3", Wish.WANTED),
    Feature("SPEED_DUPLEX", reg.SPEED_DUPLEX, "5.1.3", Wish.WANTED),
    Feature("MRG_RXBUF", reg.MRG_RXBUF, "5.1.6.4", Wish.WANTED),
    Feature("CTRL_VQ", reg.CTRL_VQ, "5.1.6.5", Wish.WANTED),
    Feature("CTRL_RX", reg.CTRL_RX, "5.1.6.5.1", Wish.WANTED, _MODERN_CTRL),
    Feature("CTRL_VLAN", reg.CTRL_VLAN, "5.1.6.5.3", Wish.WANTED, _MODERN_CTRL),
    Feature("CTRL_MAC_ADDR", reg.CTRL_MAC_ADDR, "5.1.6.5.2", Wish.WANTED, _MODERN_CTRL),
    Feature("MQ", reg.MQ, "5.1.6.5.5", Wish.WANTED),
    Feature("RSS", reg.RSS, "5.1.6.5.7", Wish.WANTED, _MODERN_CTRL),
    Feature("CTRL_RX_EXTRA", reg.CTRL_RX_EXTRA, "5.1.6.5.1", Wish.UNWANTED),
    Feature("GUEST_ANNOUNCE", reg.GUEST_ANNOUNCE, "5.1.6.5.4", Wish.UNWANTED),
    Feature("STANDBY", reg.STANDBY, "5.1.3", Wish.UNWANTED),
    Feature("NOTF_COAL", reg.NOTF_COAL, "5.1.6.5.7", Wish.UNWANTED),
    # Offloads, and what they need (5.1.3.1)
    Feature("CSUM", reg.CSUM, "5.1.3", Wish.UNWANTED),
    Feature("GUEST_CSUM", reg.GUEST_CSUM, "5.1.3", Wish.UNWANTED),
    Feature("CTRL_GUEST_OFFLOADS", reg.CTRL_GUEST_OFFLOADS, "5.1.6.5.6", Wish.UNWANTED),
    Feature("GSO", reg.GSO, "5.1.3.2", Wish.UNWANTED),
    Feature("GUEST_TSO4", reg.GUEST_TSO4, "5.1.3", Wish.UNWANTED, (reg.GUEST_CSUM,)),
    Feature("GUEST_TSO6", reg.GUEST_TSO6, "5.1.3", Wish.UNWANTED, (reg.GUEST_CSUM,)),
    Feature("GUEST_ECN", reg.GUEST_ECN, "5.1.3", Wish.UNWANTED, (reg.GUEST_TSO4,)),
    Feature("GUEST_UFO", reg.GUEST_UFO, "5.1.3", Wish.UNWANTED),
    Feature("GUEST_USO4", reg.GUEST_USO4, "5.1.3", Wish.UNWANTED),
    Feature("GUEST_USO6", reg.GUEST_USO6, "5.1.3", Wish.UNWANTED),
    Feature("HOST_TSO4", reg.HOST_TSO4, "5.1.3", Wish.UNWANTED, (reg.CSUM,)),
    Feature("HOST_TSO6", reg.HOST_TSO6, "5.1.3", Wish.UNWANTED, (reg.CSUM,)),
    Feature("HOST_ECN", reg.HOST_ECN, "5.1.3", Wish.UNWANTED, (reg.HOST_TSO4,)),
    Feature("HOST_UFO", reg.HOST_UFO, "5.1.3", Wish.UNWANTED),
    Feature("HOST_USO", reg.HOST_USO, "5.1.3", Wish.UNWANTED),
    Feature("HASH_REPORT", reg.HASH_REPORT, "5.1.3", Wish.UNWANTED, _MODERN_CTRL),
    Feature("GUEST_HDRLEN", reg.GUEST_HDRLEN, "5.1.3", Wish.UNWANTED),
    Feature("RSC_EXT", reg.RSC_EXT, "5.1.3", Wish.UNWANTED),
]

# What is to be accepted besides, if it is offered, for each word of `ixy.open`
TELLING = {"flags": (reg.GUEST_CSUM,), "hash": (reg.HASH_REPORT,)}
DOING = {
    "checksum": (reg.CSUM,),
    "segmentation": (reg.CSUM, reg.HOST_TSO4, reg.HOST_TSO6, reg.HOST_ECN),
    "coalescing": (reg.GUEST_CSUM, reg.GUEST_TSO4, reg.GUEST_TSO6, reg.GUEST_ECN),
}
_SPARED = (reg.HOST_ECN, reg.GUEST_ECN)  # what can be done without


def check_asked(
    address: str, asked: Sequence[str], possible: Container[object], metadata: Sequence[str]
) -> tuple[str, ...]:
    """`check_offloads`, of either end: packets that were put together come without checksums (5.1.6.4.1), so who asks
    for them needs to be told.

    Raises:
        ConfigurationError: see there.
    """
    offloads = check_offloads(address, asked, possible, metadata)
    if "coalescing" in offloads and "flags" not in metadata:
        raise ConfigurationError(f"{address}: offload 'coalescing' needs metadata=('flags',) too")
    return offloads


class Features(int):
    """A set of feature bits."""

    def has(self, bit: int) -> bool:
        return bool(self >> bit & 1)

    def can(self, bits: Iterable[int]) -> bool:
        """Whether all are there that a word of `ixy.open` cannot do without."""
        return all(self.has(bit) for bit in bits if bit not in _SPARED)

    def names(self) -> list[str]:
        """Of the bits in the set; a bit that no row names is called by its number."""
        known = {feature.bit: feature.name for feature in FEATURES}
        return [known.get(bit, f"bit {bit}") for bit in range(64) if self.has(bit)]


def negotiate(address: str, offered: int, *, wanted: int = 0, unwanted: int = 0) -> Features:
    """The features to accept, 2.2 and 3.1.1; what is refused is logged by name.

    Args:
        address: of the device, for messages.
        offered: the device's bits.
        wanted: bits to accept, where they are offered, although the table refuses them.
        unwanted: bits to refuse although the table wants them.

    Raises:
        UnsupportedDevice: the device lacks what the driver cannot do without.
    """
    accepted = offered & wanted
    for feature in FEATURES:
        if feature.wish is not Wish.UNWANTED and not unwanted >> feature.bit & 1:
            accepted |= offered & 1 << feature.bit
    for feature in FEATURES:
        if any(not accepted >> needed & 1 for needed in feature.needs):
            accepted &= ~(1 << feature.bit)
    _check(address, Features(accepted), Features(offered))
    log.info("%s: accepts %s", address, ", ".join(Features(accepted).names()))
    if offered & ~accepted:
        log.info("%s: refuses %s", address, ", ".join(Features(offered & ~accepted).names()))
    return Features(accepted)


def _check(address: str, accepted: Features, offered: Features) -> None:
    """6.1: ACCESS_PLATFORM is accepted where it is offered. 2.7.4.2: without VERSION_1 and ANY_LAYOUT a header would
    need a descriptor of its own.
    """
    if not accepted.has(reg.VERSION_1) and not accepted.has(reg.ANY_LAYOUT):
        raise UnsupportedDevice(f"{address}: the device offers neither VERSION_1 nor ANY_LAYOUT, one of them is needed")
    if offered.has(reg.ACCESS_PLATFORM) and not accepted.has(reg.ACCESS_PLATFORM):
        raise UnsupportedDevice(f"{address}: the device insists on ACCESS_PLATFORM")
