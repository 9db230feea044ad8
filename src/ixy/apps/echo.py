"""`ixy echo`: every packet goes back where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.apps.relay import Relay
from ixy.apps.report import Report
from ixy.apps.session import open_devices, patiently, repeat
from ixy.apps.signals import stop_on_signals
from ixy.path import kernel
from ixy.verdicts import DROP, FORWARD

if TYPE_CHECKING:
    from ixy.apps.settings import Settings
    from ixy.packets.batch import Packet

_ADDRESS_BYTES = 6


@kernel
def swap_addresses(packet: Packet) -> int:
    """Swap the destination and source MAC addresses; what is too short to have them is dropped."""
    if packet.length < 2 * _ADDRESS_BYTES:
        return DROP
    for i in range(_ADDRESS_BYTES):
        packet[i], packet[_ADDRESS_BYTES + i] = packet[_ADDRESS_BYTES + i], packet[i]
    return FORWARD


def echo(address: str, settings: Settings, *, wait: bool = False) -> int:
    """Send what a device receives back to its sender until the limit or a signal; the exit code, 1 if a sink saw that
    a packet was lost or wrong.

    Args:
        wait: sleep while no packets come.

    Raises:
        Error: as `ixy.open` and `ixy.Path`.
    """
    with stop_on_signals() as stop, open_devices([address], settings) as (device,):
        relay = Relay([(device, device)], swap_addresses, settings.batch, settings.count)
        work = patiently(relay.run, relay.sources) if wait else relay.run
        with Report([device], [address], as_json=settings.as_json) as report:
            repeat(work, relay.done, settings, stop, report)
            relay.drain()
            report.results = relay.counts()._asdict()
    return stop.exit_code(settings) or int(not report.sinks_content)
