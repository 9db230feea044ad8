"""The tape's memory: mapped for one card at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from ixy.sim.card import state
from ixy.sim.machine import Machine
from ixy.sim.rack import CARDS, PAGE, SLOT
from ixy.sim.wires import flight
from ixy.sim.wires.record import RECORDS_SIZE
from ixy.sim.wires.tape import mapped, tape

PLACE = CARDS * SLOT - 64 * PAGE  # no card has memory there


def mapped_bytes() -> int:
    """How many bytes from `PLACE` on can be touched."""
    begin = tape().address(PLACE)
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        if start == begin and "ixy-tape" in line:
            return end - start
    return 0


def test_a_block_that_ends_late() -> None:
    """An exception has kept it from ending, and the next card has the place already: it keeps its memory."""
    late = mapped(PLACE, 3 * PAGE)
    late.__enter__()
    assert mapped_bytes() == 3 * PAGE
    with mapped(PLACE, 2 * PAGE):
        assert mapped_bytes() == 2 * PAGE
        late.__exit__(None, None, None)
        assert mapped_bytes() == 2 * PAGE
        tape().bytes[PLACE] = 1
    assert mapped_bytes() == 0


def mapped_in(slot: int) -> list[tuple[int, int]]:
    """Where the memory begins and ends that is mapped in a slot, in bytes from the slot's first."""
    begin = tape().address(slot * SLOT)
    found: list[tuple[int, int]] = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(number, 16) - begin for number in line.split()[0].split("-"))
        if 0 <= start < SLOT and "ixy-tape" in line:
            found.append((start, end))
    return found


@pytest.mark.parametrize(
    ("wire", "sizes"),
    [
        ("tx_pcap={path}", [state.PART_SIZE, RECORDS_SIZE]),
        ("cable=b,delay=1us", [state.PART_SIZE, flight.SIZE, flight.SIZE]),
    ],
)
def test_no_part_of_a_slot_covers_another(machine: Machine, tmp_path: Path, wire: str, sizes: list[int]) -> None:
    """What is mapped for a card, for its wire and for frames under way is all there: none lies in another's place."""
    card = machine.plug_in(f"sim:a,{wire.format(path=tmp_path / 'out.pcap')}")
    found = mapped_in(card.index)
    machine.unplug(card)
    assert [end - start for start, end in found] == [-(-size // PAGE) * PAGE for size in sizes]
