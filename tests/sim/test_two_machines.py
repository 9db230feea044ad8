"""Two machines in one process."""

from __future__ import annotations

from lab import open_card

from ixy.path import Path
from ixy.sim.machine import Machine, SinkReport


def test_machines_do_not_disturb_each_other() -> None:
    """Each has a generator and a sink. Closing the cards of one leaves those of the other at work, frames and all."""
    one, two = Machine(stepped=True), Machine(stepped=True)
    with open_card(two, "sim:a,gen=60,count=50") as a, open_card(two, "sim:b,sink=a") as b:
        with open_card(one, "sim:a,gen=128,count=10"), open_card(one, "sim:b,sink=a"):
            one.step()
        path = Path(a.rx[0], b.tx[0])
        two.step()
        path.run(4)
        two.step()
        assert two.sink_report("a", "b") == SinkReport(50, 50, lost=0, duplicated=0, reordered=0, wrong=0)
