"""Addresses of simulated cards: `sim:NAME` and, after commas, what is plugged into its port.

sim:a                                     nothing
sim:a,cable=b                             a cable to card b
sim:a,rx_pcap=in.pcap,tx_pcap=out.pcap    replay a file into the card; record what it sends
sim:a,rx_pcap=in.pcap,timing=original     … with the gaps between packets that the file recorded
sim:a,tap=ixy0                            a TAP device of the kernel
sim:a,gen=60                              a generator of 60-byte frames; a sink checks what comes back, echoed or not
sim:a,gen=60,rate=1e6,count=1000          … at a rate in packets per second, and only so many
sim:b,sink=a,touch=48                     a sink for a's frames, byte 48 of each raised by one
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ixy.errors import AddressError
from ixy.streams import is_output

_OPTIONS = ("cable", "rx_pcap", "tx_pcap", "timing", "tap", "gen", "rate", "count", "sink", "touch")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_INTERFACE = re.compile(r"[^/\s:%]{1,15}")  # what the kernel takes for a new interface's name
_MIN_SIZE, _MAX_SIZE = 60, 1514


@dataclass(frozen=True)
class Spec:
    """A parsed address. Sizes are frame lengths in bytes without the frame check sequence."""

    name: str
    cable: str | None = None
    rx_pcap: str | None = None
    tx_pcap: str | None = None
    original_timing: bool = False
    tap: str | None = None
    gen: int | None = None
    rate: int = 0  # packets per second; 0: as fast as the card takes them
    count: int = 0  # packets; 0: without end
    sink: str | None = None
    touch: int | None = None

    @property
    def plugs_in(self) -> bool:
        """Whether something is to be plugged in at all."""
        return any((self.cable, self.rx_pcap, self.tx_pcap, self.tap, self.gen, self.sink))


def parse_spec(address: str) -> Spec:
    """Parse `sim:NAME[,OPTION=VALUE…]`.

    Raises:
        AddressError: what is wrong, and what is possible.
    """
    name, *options = address.removeprefix("sim:").split(",")
    if not address.startswith("sim:") or not _NAME.fullmatch(name):
        raise AddressError(f"{address}: not a simulated card: write sim:NAME or sim:NAME,OPTION=VALUE")
    values: dict[str, str] = {}
    for option in options:
        key, separator, value = option.partition("=")
        if key not in _OPTIONS or not separator or not value:
            raise AddressError(
                f"{address}: {option!r} is no option: possible are {', '.join(_OPTIONS)}, each with =VALUE"
            )
        if key in values:
            raise AddressError(f"{address}: {key} is given twice")
        values[key] = value
    _check_together(address, set(values))
    return _build(address, name, values)


def writes_stdout(address: str) -> bool:
    """Whether an address lets a simulated card write what it sends to standard output.

    Raises:
        AddressError: as `parse_spec`.
    """
    path = parse_spec(address).tx_pcap if address.startswith("sim:") else None
    return path is not None and is_output(path)


def _check_together(address: str, keys: set[str]) -> None:
    """One thing is plugged into each end, and options belong to it."""
    inputs = keys & {"cable", "rx_pcap", "tap", "gen"}
    outputs = keys & {"cable", "tx_pcap", "tap", "sink"}
    if len(inputs) > 1 or len(outputs) > 1 or ({"cable", "tap"} & keys and len(inputs | outputs) > 1):
        raise AddressError(f"{address}: {' and '.join(sorted(inputs | outputs))} cannot be plugged in together")
    for option, needs in (("timing", {"rx_pcap"}), ("rate", {"gen"}), ("count", {"gen"}), ("touch", {"gen", "sink"})):
        if option in keys and not keys & needs:
            raise AddressError(f"{address}: {option} goes with {' or '.join(sorted(needs))}")


def _build(address: str, name: str, values: dict[str, str]) -> Spec:
    if values.get("timing", "fast") not in ("fast", "original"):
        raise AddressError(f"{address}: timing={values['timing']}: possible are fast and original")
    if "tap" in values and not _INTERFACE.fullmatch(values["tap"]):
        raise AddressError(f"{address}: tap={values['tap']}: an interface's name has 1 to 15 characters, none of / : %")
    size = _number(address, values, "gen", _MIN_SIZE, _MAX_SIZE)
    return Spec(
        name=name,
        cable=values.get("cable"),
        rx_pcap=values.get("rx_pcap"),
        tx_pcap=values.get("tx_pcap"),
        original_timing=values.get("timing") == "original",
        tap=values.get("tap"),
        gen=size,
        rate=_number(address, values, "rate", 1, 10**9) or 0,
        count=_number(address, values, "count", 1, 10**15) or 0,
        sink=values.get("sink", name if size and "tx_pcap" not in values else None),
        # Behind the addresses, before the frame's number in the last four bytes
        touch=_number(address, values, "touch", 12, (size or _MAX_SIZE) - 5),
    )


def _number(address: str, values: dict[str, str], key: str, low: int, high: int) -> int | None:
    """An integer option; 1e6 is one too."""
    if key not in values:
        return None
    try:
        number = int(float(values[key]))
    except (ValueError, OverflowError):
        raise AddressError(f"{address}: {key}={values[key]} is no number") from None
    if not low <= number <= high:
        raise AddressError(f"{address}: {key}={values[key]}: {low} to {high} are possible")
    return number
