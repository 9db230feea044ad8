"""The structures of `ixy.tables` in a path's kernel."""

from __future__ import annotations

from typing import Any

import pytest
from lab import arrive, depart, frame, open_card

import ixy
from ixy import tables
from ixy.sim.machine import Machine


class Source(tables.Entry, tables.Bucket):
    packets: int


class All(tables.Samples):
    slots = tables.slots(4, 32)
    sources = ixy.array(10, Source)
    counters = tables.sketch(16)
    lengths = tables.histogram()
    routes = tables.routes(2)


@ixy.kernel
def use_all(packet: ixy.Packet, state: All) -> int:
    key = packet[21] & 3
    place = tables.find(state.sources, key, 0, now=1000 * packet[21] + 1, age=5000)
    state.sources[place].packets += tables.count(state.counters, key, amount=2)
    tables.observe(state.lengths, packet.length)
    tables.keep(state, packet, packet[21])
    if tables.seek(state.sources, key, 0, 1000 * packet[21] + 1) != place:
        return ixy.DROP
    if not tables.take(state.sources[place], packet.length, 10, 200, 1000 * packet[21] + 1):
        return ixy.DROP
    return tables.lookup(state.routes, packet[21] << 24) > 0


@pytest.mark.parametrize("batch", [1, 32])
def test_a_kernel_does_with_them_what_its_source_says(machine: Machine, batch: int) -> None:
    state, expected = All(), All()
    for each in (state, expected):
        tables.add_route(each.routes, "0.0.0.0/5", 1)
        tables.add_route(each.routes, "8.0.0.0/30", 2)
    packets = [frame(number, 60 + 4 * number) for number in range(16)]
    source: Any = getattr(use_all, "py_func", use_all)
    left = [data for data in packets if source(ReadOnly(data), expected)]
    assert 4 < len(left) < len(packets)
    with open_card(machine) as device:
        path = ixy.Path(device.rx[0], device.tx[0], use_all, state, batch=batch)
        for data in packets:
            arrive(machine, data)
        path.run(2 * len(packets))
        assert depart(machine) == left
    assert repr(state[0]._row) == repr(expected[0]._row)  # type: ignore[attr-defined]


class ReadOnly(bytes):
    """A packet as far as the function above looks at it."""

    @property
    def length(self) -> int:
        return len(self)


@ixy.batch_kernel
def ahead(packets: ixy.Batch, state: All) -> None:
    """Two passes: what will be looked at is fetched first."""
    for i in range(len(packets)):
        ixy.prefetch(state.sources, tables.start(state.sources, packets[i][21] & 3))
    for i in range(len(packets)):
        key = packets[i][21] & 3
        place = tables.find(state.sources, key, 0, first=tables.start(state.sources, key))
        state.sources[place].packets += 1


def test_a_table_looked_up_ahead(machine: Machine) -> None:
    state = All()
    with open_card(machine) as device:
        path = ixy.Path(device.rx[0], device.tx[0], ahead, state)
        for number in range(14):
            arrive(machine, frame(number))
        path.run(20)
    assert {source.key0: source.packets for source in tables.used(state.sources)} == {0: 4, 1: 4, 2: 3, 3: 3}


class Plain(ixy.Record):
    key: int


class Wrong(ixy.Record):
    table = ixy.array(8, Plain)


@ixy.kernel
def in_no_table(_packet: ixy.Packet, wrong: Wrong) -> int:
    return tables.seek(wrong.table, 1, 2) >= 0  # type: ignore[type-var]


def test_a_table_of_other_records(machine: Machine) -> None:
    """What it lacks is said, when the path is made, or, interpreted, when it comes to it."""
    with open_card(machine) as device:
        arrive(machine, frame(1))
        with pytest.raises((ixy.KernelError, AttributeError), match="the record has no 'last'; it has key"):
            ixy.Path(device.rx[0], device.tx[0], in_no_table, Wrong()).run(1)
