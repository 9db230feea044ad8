"""How the driver waits for what the card's firmware owns (10.5.4 of the Intel 82599 datasheet, revision 3.3)."""

from __future__ import annotations

import itertools

import pytest
from recorded import RecordedCard, no_pauses

from ixy.drivers.ixgbe import Ixgbe
from ixy.registers import i82599 as reg
from ixy.sim.machine import Machine

MAC = 1 << 3  # of SW_FW_SYNC: the MAC's registers; the firmware's bits are 5 higher


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_pauses_between_two_looks(machine: Machine, looks: int) -> None:
    """The firmware has the MAC for some looks: after each of them the driver leaves the card alone for 5 ms."""
    card = RecordedCard(machine)
    seen: list[int] = []

    def sync(value: int) -> int:
        seen.append(value)
        return value | (MAC << 5 if len(seen) <= looks else 0)

    card.replies[reg.SW_FW_SYNC.offset] = sync
    with no_pauses(card):
        driver = Ixgbe(card, ring_size=64, pool_size=96)
        driver.close()
    places = [place for place, access in enumerate(card.log) if access.is_("read", reg.SW_FW_SYNC)]
    for one, other in itertools.pairwise(places[: looks + 1]):
        assert [access.value for access in card.log[one:other] if access.kind == "sleep"] == [5000]
    assert all(access.value > 0 for access in card.log if access.kind == "sleep")
