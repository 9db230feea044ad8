"""What is told of a device: what it is, how it is reached, what it can and what of that is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ixy.bus import Slot


class Facts(NamedTuple):
    """What a driver knows of its device; see `Info` for what the names mean."""

    model: str
    slot: Slot
    mtu: int
    max_rx_queues: int
    max_tx_queues: int
    features: Sequence[str] = ()
    refused: Sequence[str] = ()
    rx_offloads: Sequence[str] = ()
    tx_offloads: Sequence[str] = ()
    firmware: str | None = None


@dataclass(frozen=True)
class Info:
    """What is known of a device. None is what cannot be known, or not unless somebody has the device open.

    Attributes:
        address, driver: as of `ixy.Device`; without a driver, nobody has it open.
        model: what it is.
        bus: how it is reached: "sysfs", "VFIO", "simulated", "vhost-user", "AF_PACKET", "AF_XDP, generic mode".
        kernel_driver, interfaces: of the kernel, for a device that nobody has open.
        mac, mtu: its address, as text, and the longest payload of a frame.
        link_up, link_speed: its link, in Mbit/s.
        rx_queues, tx_queues: how many are open, and how many there could be.
        rx_ring, tx_ring: descriptors of each ring.
        buffers: packet buffers of each receive queue's pool.
        metadata: what it tells of each packet.
        spread: how packets come to the receive queues, in words.
        rules: that put packets into queues, in words.
        features: what it can, and VirtIO's features that are used, by name.
        refused: those that it offers and the driver does not use.
        rx_offloads, tx_offloads: what it does to packets that come in and that it sends, by DPDK's names for that.
        firmware: the version of what is in its EEPROM.
        numa_node: that it is attached to; None where there is but one.
        pcie_speed, pcie_width, pcie_max_speed, pcie_max_width: its PCI Express link in GT/s and lanes, and what it
            could have.
    """

    address: str
    driver: str | None = None
    model: str | None = None
    bus: str | None = None
    kernel_driver: str | None = None
    interfaces: Sequence[str] = ()
    mac: str | None = None
    mtu: int | None = None
    link_up: bool | None = None
    link_speed: int | None = None
    rx_queues: int | None = None
    tx_queues: int | None = None
    max_rx_queues: int | None = None
    max_tx_queues: int | None = None
    rx_ring: int | None = None
    tx_ring: int | None = None
    buffers: int | None = None
    metadata: Sequence[str] = ()
    spread: str | None = None
    rules: Sequence[str] = ()
    features: Sequence[str] = ()
    refused: Sequence[str] = ()
    rx_offloads: Sequence[str] = ()
    tx_offloads: Sequence[str] = ()
    firmware: str | None = None
    numa_node: int | None = None
    pcie_speed: float | None = None
    pcie_width: int | None = None
    pcie_max_speed: float | None = None
    pcie_max_width: int | None = None


def plugged(slot: Slot) -> dict[str, Any]:
    """What a slot says, by the names of `Info`."""
    link = slot.pcie._asdict() if slot.pcie else {}
    return {"bus": slot.bus, "numa_node": slot.numa_node} | {f"pcie_{name}": value for name, value in link.items()}
