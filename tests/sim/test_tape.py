"""The tape's memory: mapped for one card at a time."""

from __future__ import annotations

from pathlib import Path

from ixy.sim.rack import CARDS, PAGE, SLOT
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
