"""A lane of the lock-step benchmark in which the sending card is asked for something with each packet."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ixy.bench.lockstep import RING_SIZE, Lane
from ixy.device import Device, open_device
from ixy.drivers.offloads import OFFLOADS
from ixy.errors import ConfigurationError, Error
from ixy.packets.packets import Flags
from ixy.path import Path, entered, kernel
from ixy.verdicts import FORWARD

if TYPE_CHECKING:
    from ixy.asking import PacketFunction
    from ixy.packets.batch import Packet
    from ixy.sim.machine import Machine

_PARTIAL = int(Flags.IP_PARTIAL | Flags.L4_PARTIAL)
_ALL = int(Flags.IP_PARTIAL | Flags.L4_PARTIAL | Flags.VLAN)
_TAG = 5


@kernel
def ask_for_checksums(packet: Packet) -> int:
    packet[48] += 1
    packet.flags = _PARTIAL
    return FORWARD


@kernel
def ask_for_tag(packet: Packet) -> int:
    packet[48] += 1
    packet.vlan = _TAG
    return FORWARD


@kernel
def ask_for_both(packet: Packet) -> int:
    packet[48] += 1
    packet.flags = _ALL
    packet.vlan = _TAG
    return FORWARD


_ASKING: dict[tuple[str, ...], PacketFunction] = {
    ("checksum",): ask_for_checksums,
    ("vlan",): ask_for_tag,
    ("checksum", "vlan"): ask_for_both,
}


class OffloadingLane(Lane):
    """See `Lane`. No sink knows what arrives: the sending card has to have sent all, and to have done what was asked.

    Args:
        offloads: "checksum", "vlan" or both.

    Raises:
        ConfigurationError: something else.
    """

    def __init__(
        self, stack: ExitStack, host: Machine, source: str, target: str, offloads: Sequence[str], frame: int = 60
    ) -> None:
        asked = tuple(name for name in OFFLOADS if name in offloads)
        if asked not in _ASKING or len(asked) != len(set(offloads)):
            raise ConfigurationError(f"--offloads {','.join(offloads)}: checksum, vlan, and both can be measured")
        told = list(dict.fromkeys(column for name in asked for column in OFFLOADS[name]))
        rx = stack.enter_context(
            open_device(f"sim:{source},gen={frame}", ring_size=RING_SIZE, metadata=told, sim=host, link_timeout=0)
        )
        tx = stack.enter_context(
            open_device(
                f"sim:{target},sink={source}",
                ring_size=RING_SIZE,
                metadata=told,
                offloads=asked,
                sim=host,
                link_timeout=0,
            )
        )
        self._devices, self._function = (rx, tx), _ASKING[asked]
        super().__init__(host, source, target, self._path)
        _provide(host, rx, tx, self._function)

    @contextmanager
    def _path(self, batch: int) -> Generator[tuple[Any, Any]]:
        rx, tx = self._devices
        path = Path(rx.rx[0], tx.tx[0], self._function, batch=batch)
        with entered(path):
            yield path.kernels.poll, path.state

    def check(self) -> None:
        """
        Raises:
            Error: a packet was lost, or left without what was asked for it.
        """
        rx, tx = self._devices
        counted, dropped = tx.xstats(), rx.stats().rx_dropped
        if dropped or counted["tx_q0_unchanged"] or counted["tx_q0_refused"]:
            raise Error(f"{dropped} packets were lost, and of {counted['tx_q0_unchanged']} wishes were not met")


def _provide(host: Machine, rx: Device, tx: Device, function: Any) -> None:
    """Let some packets through, for which the model compiles what it does to them."""
    path = Path(rx.rx[0], tx.tx[0], function)
    while tx.stats().tx_packets == 0:
        host.step()
        path.run(1)
