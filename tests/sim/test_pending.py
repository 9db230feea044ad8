"""What the PCIe capability says of pending transactions (5.2.5.3.2 and 9.3.10.6 of the 82599 datasheet)."""

from __future__ import annotations

import pytest
from recorded import RecordedCard, no_pauses

from ixy.drivers.ixgbe import Ixgbe
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine

DEVICE_STATUS, PENDING = 0xAA, 1 << 5


@pytest.mark.parametrize(("answers", "looks"), [([0], 1), ([0xFFDF], 1), ([PENDING, 0], 2), ([PENDING | 1, 0xFFDF], 2)])
def test_bit_5_alone_says_so(machine: Machine, answers: list[int], looks: int) -> None:
    """The card cannot disable mastering in time, so its buffers are flushed, once nothing is pending."""
    card = RecordedCard(machine)
    card.replies[reg.STATUS.offset] = lambda value: value | 1 << 19
    real, seen = card.config_read, []

    def config_read(offset: int, size: int) -> int:
        if offset != DEVICE_STATUS or len(seen) == len(answers):
            return real(offset, size)
        seen.append(answers[len(seen)])
        return seen[-1]

    card.config_read = config_read  # type: ignore[method-assign]
    flushed: list[int] = []
    card.written[reg.GCR_EXT.offset] = lambda _: flushed.append(len(seen))
    with no_pauses(card):
        Ixgbe(card, ring_size=64, pool_size=96).close()
    assert flushed[0] == looks
