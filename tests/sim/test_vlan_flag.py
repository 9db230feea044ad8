"""Whether a tag was taken out is told by a flag, too."""

from __future__ import annotations

import pytest
from lab import OTHER, STATION, arrive

import ixy
from ixy.sim.machine import Machine


@pytest.mark.parametrize("metadata", [("flags", "vlan"), ("flags", "hash", "vlan", "time")])
def test_tagged_and_untagged(machine: Machine, metadata: tuple[str, ...]) -> None:
    """VLAN 5 with priority 1, then none, then VLAN 0: which is a tag as well."""
    plain = STATION + OTHER + b"\x08\x00" + bytes(50)
    with ixy.open("sim:a", sim=machine, link_timeout=0, metadata=metadata) as device:
        for tag in (b"\x81\x00\x20\x05", b"", b"\x81\x00\x00\x00"):
            arrive(machine, plain[:12] + tag + plain[12:])
        with device.rx[0].receive(8) as batch:
            assert [bool(flags & ixy.Flags.VLAN) for flags in batch.flags] == [True, False, True]
            assert batch.vlans.tolist() == [0x2005, 0, 0]
            assert [bytes(packet[12:14]) for packet in batch] == [b"\x08\x00"] * 3
