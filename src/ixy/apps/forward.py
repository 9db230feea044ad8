"""`ixy forward`: packets between two devices, both ways."""

from __future__ import annotations

from ixy.apps.relay import Relay
from ixy.apps.report import Report
from ixy.apps.session import Limits, Opening, open_devices, repeat, stop_on_signals
from ixy.path import touch, unchanged


def forward(
    addresses: tuple[str, str],
    opening: Opening,
    limits: Limits,
    *,
    batch: int,
    touched: bool,
    one_way: bool,
    as_json: bool,
) -> int:
    """Forward between two devices until the limit or a signal; the exit code.

    Args:
        batch: the most packets taken at a time.
        touched: raise byte 48 of each packet by one, instead of leaving it as it is.
        one_way: from the first device to the second only.

    Raises:
        Error: as `ixy.open` and `ixy.Path`.
    """
    function = touch if touched else unchanged
    with stop_on_signals() as stop, open_devices(addresses, opening, stop) as (a, b):
        relay = Relay([(a, b)] if one_way else [(a, b), (b, a)], function, batch, limits.count)
        with Report([a, b], addresses, as_json=as_json) as report:
            repeat(relay.run, relay.done, limits, stop, report)
            report.results = relay.drain()
    return stop.exit_code(limits)
