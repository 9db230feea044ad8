"""A card behind the guest's IOMMU: tables are laid out here from the VT-d specification, and walked by the model."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixy.sim.card import state
from ixy.sim.card.dma import dma_read, dma_write
from ixy.sim.card.iommu import READ, WRITE, Iommu, translate
from ixy.sim.qemu.qtest import Qtest
from ixy.sim.rack import new_rack
from ixy.sim.slots import TRANSLATE, provide
from ixy.sim.wires.tape import tape

PAGE = 4096
REQUESTER = 0x0080  # bus 0, device 0x10, function 0
ROOT, CONTEXTS, TOP = 1 * PAGE, 2 * PAGE, 3 * PAGE
MEMORY = 64 * PAGE


class Tables:
    """A machine's memory with root table, context table, and second-level tables for one card."""

    def __init__(self, levels: int = 3, kind: int = 0) -> None:
        self.bytes = np.zeros(MEMORY, np.uint8)
        self.words = self.bytes.view(np.int64)
        self.allowed = np.ones(MEMORY // PAGE, np.uint8)
        self._levels = levels
        self._next = TOP + PAGE
        self.set(ROOT, CONTEXTS | 1)  # bus 0: present
        self.set(CONTEXTS + 0x80 * 16, TOP | kind << 2 | 1)
        self.set(CONTEXTS + 0x80 * 16 + 8, levels - 2 | 1 << 8)  # address width; domain 1

    def set(self, address: int, value: int) -> None:
        self.words[address // 8] = value

    def map(self, address: int, to: int, access: int, *, level: int = 0) -> None:
        """Map a page, or a larger one from a table at `level`."""
        table = TOP
        for above in range(self._levels - 1, level, -1):
            place = table + (address >> 12 + 9 * above & 511) * 8
            if self.words[place // 8] == 0:
                self.set(place, self._next | 3)
                self._next += PAGE
            table = int(self.words[place // 8]) & ~0xFFF
        self.set(table + (address >> 12 + 9 * level & 511) * 8, to | access | (1 << 7 if level else 0))

    def __call__(self, address: int, access: int = READ) -> int:
        return translate(self.words, self.allowed, ROOT, REQUESTER, address, access)


@pytest.mark.parametrize("levels", [3, 4, 5])
def test_a_page_is_found_with_the_rights_it_has(levels: int) -> None:
    """Pages to read, to write, for both, next to one that is not mapped, near the end of the address width."""
    tables = Tables(levels)
    first = (1 << 12 + 9 * levels) - 4 * PAGE
    for i, access in enumerate((READ, WRITE, READ | WRITE)):
        tables.map(first + i * PAGE, (40 + i) * PAGE, access)
    for i, access in enumerate((READ, WRITE, READ | WRITE)):
        for wanted in (READ, WRITE, READ | WRITE):
            allowed = access & wanted == wanted
            assert tables(first + i * PAGE + 0x123, wanted) == ((40 + i) * PAGE + 0x123 if allowed else -1)
    assert tables(first + 3 * PAGE) == -1
    assert tables(first + (1 << 12 + 9 * levels)) == -1
    assert tables(-PAGE) == -1


def test_large_pages() -> None:
    """2 MiB and 1 GiB; what lies behind the bits of the offset comes from the address."""
    tables = Tables()
    tables.map(5 << 21, 7 << 21, READ, level=1)
    tables.map(2 << 30, 9 << 30, WRITE, level=2)
    assert tables((5 << 21) + 0x1F_F123) == (7 << 21) + 0x1F_F123
    assert tables((2 << 30) + 0x3FFF_F123, WRITE) == (9 << 30) + 0x3FFF_F123
    assert tables(2 << 30, READ) == -1


def test_pass_through_and_what_is_not_present() -> None:
    """A context entry that passes all, one of a reserved type, other cards, and no root entry."""
    assert Tables(kind=2)(0x1234_5678) == 0x1234_5678
    assert Tables(kind=3)(0x1234_5678) == -1
    tables = Tables(kind=2)
    assert translate(tables.words, tables.allowed, ROOT, REQUESTER + 1, 0, READ) == -1
    assert translate(tables.words, tables.allowed, ROOT, REQUESTER + 0x100, 0, READ) == -1


def test_tables_beyond_memory_map_nothing() -> None:
    """Root table, context table or page tables point outside of memory: refused, and nothing else happens."""
    tables = Tables()
    assert translate(tables.words, tables.allowed, 1 << 50, REQUESTER, 0, READ) == -1
    assert translate(tables.words, tables.allowed, MEMORY, REQUESTER, 0, READ) == -1
    tables.set(TOP, 1 << 45 | 3)
    assert tables(0) == -1
    tables.set(ROOT, 1 << 45 | 1)
    assert tables(0) == -1
    tables = Tables()
    tables.map(0, 40 * PAGE, READ)
    assert tables(0) == 40 * PAGE
    tables.allowed[TOP // PAGE] = 0
    assert tables(0) == -1


@given(st.integers(0, 3 * PAGE), st.integers(1, 2 * PAGE))
def test_dma_follows_scattered_pages(start: int, size: int) -> None:
    """Five neighbours for the card lie apart in memory. What it writes there it reads back; the page behind is refused.

    Each byte lies where its own page does.
    """
    tables = Tables()
    places = [50, 44, 60, 41, 55]
    for i, place in enumerate(places):
        tables.map(0x10_0000 + i * PAGE, place * PAGE, READ | WRITE)
    rack = new_rack(tables.bytes, 0, tape())
    rack.allowed[:] = 1
    provide(rack, TRANSLATE)
    rack.cards[0, [state.ROOT_TABLE, state.REQUESTER]] = ROOT, REQUESTER
    sent = (np.arange(size) % 251).astype(np.uint8)
    back = np.zeros(size, np.uint8)
    fits = start + size <= len(places) * PAGE
    assert dma_write(rack, 0, 0x10_0000 + start, sent, 0, size) is fits
    assert dma_read(rack, 0, 0x10_0000 + start, back, 0, size) is fits
    if fits:
        assert (back == sent).all()
        for i in (0, size - 1):
            page, offset = divmod(start + i, PAGE)
            assert tables.bytes[places[page] * PAGE + offset] == sent[i]
    assert rack.counters[0, state.DMA_REFUSED] == (0 if fits else 2)
    assert fits or rack.counters[0, state.DMA_ADDRESS] == 0x10_0000 + len(places) * PAGE


@pytest.mark.parametrize(("status", "expected"), [(1 << 31, 0x1234_5000), (0, 0)])
def test_the_root_table_is_asked_for(status: int, expected: int) -> None:
    """Two cards ask at once: QEMU's answers, one per command, reach both; interrupts between change nothing."""
    ours, qemus = socket.socketpair()
    with ours, qemus:
        qtest = Qtest(ours)
        found: list[tuple[int, int]] = []
        for slot in (0x10, 0x11):
            Iommu(qtest, slot).look(lambda *answer: found.append(answer))
        qtest.write32(0xFEE0_0000, 1)
        answers = {b"readq 0xfed90018": b"OK 0x%08x00000000" % status, b"readq 0xfed90020": b"OK 0x0000000012345400"}
        while len(found) < 2:
            for command in qemus.recv(4096).splitlines():
                qemus.send(answers.get(command, b"OK") + b"\n")
            assert qtest.handle()
        assert found == [(expected, 0x80), (expected, 0x88)]
