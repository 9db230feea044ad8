"""Addresses of simulated cards: `sim:NAME` and, after commas, what is plugged into its port.

sim:a                                     nothing
sim:a,cable=b                             a cable to card b
sim:a,cable=b,delay=50us,jitter=5us       … that delays frames; also loss=, duplicate=, reorder=, corrupt=, see `impair`
sim:a,cable=unix:/path/to/socket          a cable to a card of another process, or to a virtual machine, see `stream`
sim:a,rx_pcap=in.pcap,tx_pcap=out.pcap    replay a file into the card; record what it sends
sim:a,rx_pcap=in.pcap,timing=original     … with the gaps between packets that the file recorded
sim:a,tap=ixy0                            a TAP device of the kernel
sim:a,gen=60                              a generator of 60-byte frames; a sink checks what comes back, echoed or not
sim:a,gen=60,rate=1e6,count=1000          … at a rate in packets per second, and only so many
sim:b,sink=a,touch=48                     a sink for a's frames, byte 48 of each raised by one
sim:a,wire=10G                            whatever is plugged in: frames take their time, at so many bits a second
sim:a,clock=virtual                       … and it goes by a virtual clock, see `ixy.clock`, as all cards of the process

Of the card itself: `card=x540`, which kind it is, an 82599 if nothing is said; `ready=10`, how many register reads pass
until a bit that software waits for is set; `seed=7`, which contents its tables have after power-on that then have none
(else it is the card's name that says so). What a cable does follows from the same seed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ixy.arguments import quantity
from ixy.errors import AddressError, CaptureError
from ixy.sim.card.models import DEFAULT, MODELS, Model
from ixy.sim.card.ready import DEFAULT_READS, MAX_READS
from ixy.sim.wires.impair import MAX_SEED
from ixy.sim.wires.kinds import KINDS
from ixy.sim.wires.sink import Sink
from ixy.sim.wires.wire import CARD_NAME, Options
from ixy.streams import is_output

if TYPE_CHECKING:
    from ixy.sim.wires.wire import Wire

_SPEED = "wire"
_CLOCK = "clock"
_OWN = (_SPEED, _CLOCK, "card", "ready", "seed")  # of the card, whatever is plugged in
_OPTIONS = [*dict.fromkeys([*(option for kind in KINDS for option in (kind.option, *kind.extras)), *_OWN])]
_RATES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}  # bits per second


@dataclass(frozen=True)
class Spec:
    """A parsed address.

    Attributes:
        name: of the card.
        wires: what is plugged in, in the order in which it is.
        speed: of whatever is plugged in, in bits per second; 0 if frames take no time.
        virtual: it goes by a virtual clock.
        ready: how many register reads the card's ready bits take.
        seed: of what has no value after power-on; None: the card's name.
        model: which kind of card it is.
    """

    name: str
    wires: tuple[Wire, ...] = ()
    speed: int = 0
    virtual: bool = False
    ready: int = DEFAULT_READS
    seed: int | None = None
    model: Model = MODELS[DEFAULT]

    @property
    def sink(self) -> str | None:
        """The name of the card whose generator's frames are checked, if any are."""
        return next((wire.generator for wire in self.wires if isinstance(wire, Sink)), None)


def writes_stdout(address: str) -> bool:
    """Whether an address lets a simulated card write what it sends to standard output.

    Raises:
        AddressError: as `parse_spec`.
    """
    wires = parse_spec(address).wires if address.startswith("sim:") else ()
    return any(is_output(wire.writes) for wire in wires if wire.writes is not None)


def check_files(wires: Iterable[Wire], reads: Iterable[str] = (), writes: Iterable[str] = ()) -> None:
    """Refuse wires of which two write one file, or one writes what another reads, however it is named.

    Args:
        reads, writes: what the program reads and writes besides.

    Raises:
        CaptureError: which file.
    """
    wires = list(wires)
    read = {_identity(path) for path in (*reads, *(wire.reads for wire in wires if wire.reads is not None))}
    written: set[object] = set()
    for path in (*writes, *(wire.writes for wire in wires if wire.writes is not None)):
        identity = _identity(path)
        if identity is not None and identity in read:
            raise CaptureError(f"{path}: is both read and written: name another file to write")
        if identity in written:
            raise CaptureError(f"{path}: is written twice: name another file")
        if identity is not None:
            written.add(identity)


def _identity(path: str) -> object:
    """What equal names of one file have in common. None for a device, such as /dev/null, which many may share."""
    try:
        status = os.fstat(1) if path == "-" else Path(path).stat()
    except OSError:
        return os.path.realpath(path)
    return None if stat.S_ISCHR(status.st_mode) else (status.st_dev, status.st_ino)


def parse_spec(address: str) -> Spec:
    """Parse `sim:NAME[,OPTION=VALUE…]`.

    Raises:
        AddressError: what is wrong, and what is possible.
    """
    name, *options = address.removeprefix("sim:").split(",")
    if not address.startswith("sim:") or not CARD_NAME.fullmatch(name):
        raise AddressError(f"{address}: not a simulated card: write sim:NAME or sim:NAME,OPTION=VALUE")
    values: dict[str, str] = {}
    for option in options:
        key, separator, value = option.partition("=")
        if key not in _OPTIONS:
            raise AddressError(
                f"{address}: {option!r} is no option: possible are {', '.join(_OPTIONS)}, each with =VALUE"
            )
        if not separator or not value:
            raise AddressError(f"{address}: {key} needs a value: write {key}=VALUE")
        if key in values:
            raise AddressError(f"{address}: {key} is given twice")
        values[key] = value
    _answer(name, values)
    _check_together(address, values)
    given = Options(address, name, values)
    ready, seed = given.number("ready", 0, MAX_READS), given.number("seed", 0, MAX_SEED)
    wires = tuple(kind.parse(given) for kind in _named(values))
    return Spec(
        name,
        wires,
        speed=_speed(address, values),
        virtual=_virtual(address, values),
        ready=DEFAULT_READS if ready is None else ready,
        seed=seed,
        model=_model(address, values),
    )


def _model(address: str, values: dict[str, str]) -> Model:
    """The kind of card that is asked for."""
    kind = values.get("card", DEFAULT)
    if kind not in MODELS:
        raise AddressError(f"{address}: no card is a {kind!r}: possible are {' and '.join(MODELS)}")
    return MODELS[kind]


def _speed(address: str, values: dict[str, str]) -> int:
    """The speed that is asked for, 0 if none is."""
    if _SPEED not in values:
        return 0
    return quantity(f"{address}: {_SPEED}", values[_SPEED], _RATES, "1M", "400G", error=AddressError)


def _virtual(address: str, values: dict[str, str]) -> bool:
    """Whether a virtual clock is asked for, which nobody outside the process goes by."""
    which = values.get(_CLOCK, "real")
    if which not in ("real", "virtual"):
        raise AddressError(f"{address}: {_CLOCK}={which}: possible are real and virtual")
    outside = [f"{kind.option}={values[kind.option]}" for kind in _named(values) if kind.watched]
    if which == "virtual" and outside:
        raise AddressError(
            f"{address}: {outside[0]} leads out of this process, where no virtual clock goes: leave out one of them"
        )
    return which == "virtual"


def _named(values: dict[str, str]) -> list[type[Wire]]:
    """The kinds of wires that are asked for."""
    return [kind for kind in KINDS if kind.named(values)]


def _answer(name: str, values: dict[str, str]) -> None:
    """Where nothing takes what the card sends, the wire that delivers may know what does."""
    kinds = _named(values)
    answers = [kind.answer for kind in kinds if kind.answer is not None]
    if answers and not any(kind.takes for kind in kinds):
        values[answers[0]] = name


def _check_together(address: str, values: dict[str, str]) -> None:
    """One thing is plugged into each end, and options belong to it."""
    kinds = _named(values)
    for end in ("delivers", "takes"):
        rivals = [kind.option for kind in kinds if getattr(kind, end)]
        if len(rivals) > 1:
            raise AddressError(f"{address}: {' and '.join(sorted(rivals))} cannot be plugged in together")
    possible = {*_OWN, *(extra for kind in kinds for extra in kind.extras)}
    for kind in KINDS:
        for extra in kind.extras:
            if extra in values and extra not in possible:
                raise AddressError(f"{address}: {extra} goes with {kind.option}")
