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

sim:a.vf0,vfs=2                           virtual function 0 of card a, which has two; what is plugged in is the card's
sim:a.vf1,vlan=7,mac=02:00:00:00:00:01    another one of the same card, with what its physical function lets it have

What the first of a card's functions to be opened says is plugged in and how many functions there are goes for all. Each
may have `mac=`, its address; `vlan=`, to which alone it then belongs; `spoof=off`, so that it may send with any
address; `trust=on`, so that it may change the address that it was given, and take all multicasts.

Of the card itself: `card=x540`, which kind it is, an 82599 if nothing is said; `ready=10`, how many register reads pass
until a bit that software waits for is set; `seed=7`, which contents its tables have after power-on that then have none
(else it is the card's name that says so). What a cable does follows from the same seed.
"""

from __future__ import annotations

import os
import re
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
_VFS = "vfs"
_OWN = (_SPEED, _CLOCK, "card", "ready", "seed", _VFS)  # of the card, whatever is plugged in
_OF_FUNCTION = ("mac", "vlan", "spoof", "trust")
_OPTIONS = [*dict.fromkeys([*(option for kind in KINDS for option in (kind.option, *kind.extras)), *_OWN])]
_FUNCTION_NAME = re.compile(r"(.+)\.vf(\d{1,9})", re.ASCII)
MAX_VFS = 63  # the last pool is the physical function's
DEFAULT_VFS = 8
_RATES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}  # bits per second


@dataclass(frozen=True)
class Grant:
    """What a physical function lets a virtual one have.

    Attributes:
        mac: its address; None: one by the card's and the function's numbers.
        vlan: the VLAN to which it belongs, without knowing; 0: it chooses its VLANs by itself.
        spoof: whether what it sends must have its own address and its VLANs.
        trust: whether it may change its address, and take all multicasts.
    """

    mac: bytes | None = None
    vlan: int = 0
    spoof: bool = True
    trust: bool = False


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
        vf: the number of the virtual function that is meant; None: the physical one.
        vfs: how many there are; 0: none.
        grant: what this one is to have.
        shared: whether nothing is said of the card, so that the function may be one of a card that is open.
    """

    name: str
    wires: tuple[Wire, ...] = ()
    speed: int = 0
    virtual: bool = False
    ready: int = DEFAULT_READS
    seed: int | None = None
    model: Model = MODELS[DEFAULT]
    vf: int | None = None
    vfs: int = 0
    grant: Grant = Grant()
    shared: bool = False

    @property
    def full_name(self) -> str:
        """Of the function."""
        return self.name if self.vf is None else f"{self.name}.vf{self.vf}"

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
    name, vf = function_of(name)
    possible = _OPTIONS if vf is None else [*_OPTIONS, *_OF_FUNCTION]
    values: dict[str, str] = {}
    for option in options:
        key, separator, value = option.partition("=")
        if key not in possible:
            raise AddressError(
                f"{address}: {option!r} is no option: possible are {', '.join(possible)}, each with =VALUE"
            )
        if not separator or not value:
            raise AddressError(f"{address}: {key} needs a value: write {key}=VALUE")
        if key in values:
            raise AddressError(f"{address}: {key} is given twice")
        values[key] = value
    grant = _grant(address, {key: values.pop(key) for key in _OF_FUNCTION if key in values})
    shared = vf is not None and not values
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
        vf=vf,
        vfs=_functions(address, given, vf),
        grant=grant,
        shared=shared,
    )


def function_of(name: str) -> tuple[str, int | None]:
    """The card that a name is of, and the number of its virtual function, if it is of one."""
    function = _FUNCTION_NAME.fullmatch(name)
    return (function[1], int(function[2])) if function else (name, None)


def _functions(address: str, given: Options, vf: int | None) -> int:
    """How many virtual functions the card is to have."""
    vfs = given.number(_VFS, 0 if vf is None else 1, MAX_VFS)
    if vfs is None:
        vfs = 0 if vf is None else min(max(DEFAULT_VFS, vf + 1), MAX_VFS)
    if vf is not None and vf >= vfs:
        raise AddressError(f"{address}: there is no virtual function {vf}: with vfs={vfs} the last is {vfs - 1}")
    return vfs


def _grant(address: str, values: dict[str, str]) -> Grant:
    """What a virtual function is to have."""
    mac, vlan = values.get("mac"), values.get("vlan", "0")
    if mac is not None and not _is_station(mac):
        raise AddressError(f"{address}: mac={mac}: write the address of a station, such as 02:00:00:00:00:01")
    if not vlan.isdecimal() or not vlan.isascii() or not 0 <= int(vlan) <= 4094:
        raise AddressError(f"{address}: vlan={vlan}: possible are 1 to 4094, and 0 for none")
    return Grant(
        mac=None if mac is None else bytes.fromhex(mac.replace(":", "")),
        vlan=int(vlan),
        spoof=_switch(address, values, "spoof", "on"),
        trust=_switch(address, values, "trust", "off"),
    )


def _is_station(mac: str) -> bool:
    """Whether a text is a MAC address, and that of one station."""
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", mac):
        return False
    return not int(mac[:2], 16) & 1 and any(int(part, 16) for part in mac.split(":"))


def _switch(address: str, values: dict[str, str], option: str, default: str) -> bool:
    which = values.get(option, default)
    if which not in ("on", "off"):
        raise AddressError(f"{address}: {option}={which}: possible are on and off")
    return which == "on"


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
