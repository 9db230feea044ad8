"""What descriptors of the 82599 say about packets, many at a time by vector moves or one by one, for any bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixy import Flags
from ixy.drivers.ixgbe.datapath import describe, describe_all
from ixy.packets.packets import Packets, new_packets

SIZE = 64
COLUMNS = {"flags": "flags", "hash": "hashes", "vlan": "vlans"}


def expected(first: int, second: int) -> dict[str, int]:
    """By the tables of section 7.1.6.2 of the datasheet, a bit after the other."""
    flags = Flags(0)
    if not first >> 15 & 1:  # the packet type is none of an Ethertype filter's
        for bit, flag in ((4, Flags.IPV4), (6, Flags.IPV6), (8, Flags.TCP), (9, Flags.UDP)):
            flags |= flag if first >> bit & 1 else 0
    for looked, wrong, good, bad in ((6, 31, Flags.IP_GOOD, Flags.IP_BAD), (5, 30, Flags.L4_GOOD, Flags.L4_BAD)):
        if second >> looked & 1:
            flags |= bad if second >> wrong & 1 else good
    hashed, tagged = first & 15 != 0, second >> 3 & 1 == 1
    flags |= (Flags.HASH if hashed else 0) | (Flags.VLAN if tagged else 0)
    return {"flags": int(flags), "hash": first >> 32 if hashed else 0, "vlan": second >> 48 if tagged else 0}


def told(packets: Packets, names: tuple[str, ...], at: int, count: int) -> list[dict[str, int]]:
    return [{name: int(getattr(packets, COLUMNS[name])[i]) for name in names} for i in range(at, at + count)]


WORD = st.integers(0, 2**64 - 1) | st.integers(0, 2**64 - 1).map(lambda word: word & ~0x800F)


@pytest.mark.parametrize("names", [("flags",), ("vlan",), ("flags", "hash", "vlan")])
@given(words=st.lists(st.tuples(WORD, WORD), min_size=1, max_size=40), slot=st.integers(0, 24), at=st.integers(0, 24))
def test_any_descriptors(names: tuple[str, ...], words: list[tuple[int, int]], slot: int, at: int) -> None:
    """What is noted is what the datasheet says of each, and nothing before or behind them is touched."""
    descriptors = np.zeros(2 * SIZE, np.int64)
    descriptors.view(np.uint64)[2 * slot : 2 * (slot + len(words))] = np.array(words, np.uint64).ravel()
    packets = new_packets(SIZE, names, new=np.zeros)
    describe_all(descriptors, slot, packets.flags, packets.hashes, packets.vlans, at, len(words))
    right = [{name: expected(*pair)[name] for name in names} for pair in words]
    nothing = dict.fromkeys(names, 0)
    assert told(packets, names, 0, SIZE) == [nothing] * at + right + [nothing] * (SIZE - at - len(words))
    for i in range(len(words)):
        describe(packets, 0, *descriptors[2 * (slot + i) : 2 * (slot + i) + 2])
        assert told(packets, names, 0, 1) == [right[i]]
