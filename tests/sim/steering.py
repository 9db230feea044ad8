"""Which queue a packet comes to, by filters and rules."""

from __future__ import annotations

from lab import arrive
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ixy.device import Device
from ixy.sim.machine import Machine

ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:69:78:79:00:01")  # type 0x9000, unless what follows has its own


def queue_of(machine: Machine, device: Device, packet: Packet) -> int | None:
    """The queue to which a packet comes; None if to none."""
    arrive(machine, bytes(ETHERNET / packet).ljust(60, b"\0"))
    came: list[int] = []
    for number, queue in enumerate(device.rx):
        with queue.receive() as batch:
            came += [number] * len(batch)
    assert len(came) <= 1
    return came[0] if came else None
