"""How fast packets are to go: so many a second, so many bits a second, or a share of what the line takes."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from ixy.apps.settings import MAX_RATE
from ixy.arguments import whole_number
from ixy.errors import ConfigurationError

if TYPE_CHECKING:
    from ixy.device import Device

MAX_BITS = 10**12  # bits per second
_OVERHEAD = 24  # bytes that a frame takes on the wire besides: check sequence, preamble, start delimiter, gap
_LEAST = 60  # bytes: a shorter one is padded
_QUANTITY = re.compile(r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]\+?[0-9]{1,2})?) ?([a-zA-Z/%]+)", re.ASCII)
_UNITS = {"pps": "pps", "bps": "bps", "bit/s": "bps", "%": "%"}
_SIMULATED = "sim:"
_PREFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


class Rate(NamedTuple):
    """A rate.

    Attributes:
        amount: how many.
        unit: "pps" packets a second; "bps" bits a second, as many as they are on the wire, with preamble, check
            sequence and gap; "%" hundredths of the line.
    """

    amount: Decimal
    unit: str = "pps"

    def __str__(self) -> str:
        return f"{self.amount}%" if self.unit == "%" else f"{int(self.amount)} {_WORDS[self.unit]}"

    def on(self, device: Device) -> Rate:
        """The same in packets or bits a second.

        Raises:
            ConfigurationError: the device's line has no rate of which there could be a share.
        """
        if self.unit != "%":
            return self
        line = line_rate(device)
        if not line:
            simulated = ", or give it wire=10G" if device.address.startswith(_SIMULATED) else ""
            raise ConfigurationError(
                f"{device.address}: it has no line of which {self} could be: say so many pps or Mbps{simulated}"
            )
        return Rate(Decimal(round(self.amount * line / 100)), "bps")

    def check(self, device: Device, mean_bits: float) -> None:
        """Compare a rate in packets or bits with the line.

        Args:
            mean_bits: that a packet takes on the wire.

        Raises:
            ConfigurationError: it is more than the line takes.
        """
        line = line_rate(device)
        needed = float(self.amount) * (mean_bits if self.unit == "pps" else 1)
        if line and needed > line * (1 + 1e-9):
            raise ConfigurationError(
                f"rate {self}: that is {needed / 1e6:.1f} Mbit/s on the wire, "
                f"and the line of {device.address} has {line / 1e6:g}"
            )


_WORDS = {"pps": "packets per second", "bps": "bits per second"}


def parse_rate(name: str, text: str) -> Rate:
    """What a user wrote: `1e6`, `1.5Mpps`, `2Gbps` or `2Gbit/s`, `80%`.

    Raises:
        ConfigurationError: something else, or out of bounds.
    """
    found = _QUANTITY.fullmatch(text.strip())
    if not found or found[2][0] in "eE":
        return Rate(Decimal(whole_number(name, text, 1, MAX_RATE)))
    known = {prefix + unit: (what, factor) for unit, what in _UNITS.items() for prefix, factor in _PREFIXES.items()}
    if found[2] not in known:
        raise ConfigurationError(f"{name} {text!r}: write so many pps, kpps, Mpps, bps, kbps, Mbps, Gbps or %")
    unit, factor = known[found[2]]
    amount = Decimal(found[1]) * factor
    return bounded(f"{name} {text}", Rate(amount, unit))


def bounded(name: str, rate: Rate) -> Rate:
    """The rate, if there can be such.

    Raises:
        ConfigurationError: it is out of bounds, or a part of a packet or a bit.
    """
    most = {"pps": MAX_RATE, "bps": MAX_BITS, "%": 100}[rate.unit]
    if not 0 < rate.amount <= most:
        raise ConfigurationError(f"{name}: more than 0 and up to {most} {rate.unit} are possible")
    if rate.unit != "%" and rate.amount != int(rate.amount):
        raise ConfigurationError(f"{name}: write whole {_WORDS[rate.unit]}")
    return rate


def wire_bits(length: int) -> int:
    """What a frame of `length` bytes, without its check sequence, takes on the wire (IEEE 802.3)."""
    return 8 * (max(length, _LEAST) + _OVERHEAD)


def line_rate(device: Device) -> int:
    """Bits a second of a device's line, 0 if it has none, as where frames take no time."""
    from ixy.sim.machine import machine
    from ixy.sim.rack import SPEED

    if device.address.startswith(_SIMULATED):
        card = machine().card_of(device.address.removeprefix(_SIMULATED))
        return int(machine().rack.outputs[card.index, SPEED]) if card else 0
    return 0 if device.address.startswith(("vhost-user:", "vhost-server:")) else device.link.speed * 10**6
