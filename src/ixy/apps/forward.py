"""`ixy forward`: packets between two devices, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.apps.relay import Relay
from ixy.apps.report import Report
from ixy.apps.session import open_devices, patiently, repeat
from ixy.apps.signals import stop_on_signals
from ixy.path import touch, unchanged

if TYPE_CHECKING:
    from ixy.apps.settings import Settings


def forward(addresses: tuple[str, str], settings: Settings, *, touched: bool, one_way: bool, wait: bool = False) -> int:
    """Forward between two devices until the limit or a signal; the exit code.

    Args:
        touched: raise byte 48 of each packet by one, instead of leaving it as it is.
        one_way: from the first device to the second only.
        wait: sleep while no packets come.

    Raises:
        Error: as `ixy.open` and `ixy.Path`.
    """
    function = touch if touched else unchanged
    with stop_on_signals() as stop, open_devices(addresses, settings) as (a, b):
        relay = Relay([(a, b)] if one_way else [(a, b), (b, a)], function, settings.batch, settings.count)
        work = patiently(relay.run, relay.sources) if wait else relay.run
        with Report([a, b], addresses, as_json=settings.as_json) as report:
            repeat(work, relay.done, settings, stop, report)
            relay.drain()
            report.results = relay.counts()._asdict()
    return stop.exit_code(settings)
