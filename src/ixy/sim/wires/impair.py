"""What a cable does to frames besides carrying them, and what it has done.

The words mean what they mean to `tc netem`. Each is decided for each frame by itself, by chance that follows from the
seed, the direction and the frame's number:

loss         the frame never arrives, and nothing else becomes of it
delay        so long after it was sent the frame arrives,
jitter       or as much earlier or later, each moment alike; frames that are closer than that overtake each other
reorder      the frame is not delayed, and so overtakes those that are under way
corrupt      one of its bits is inverted, before the frame check sequence is made: the card at which it arrives takes it
duplicate    a copy arrives besides, after a delay of its own, neither corrupted nor reordered

Up to 16,384 frames can be under way in each direction; one more, and one of more than 16 KiB, is lost, and is recorded
as one that there was no room for.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ixy.arguments import quantity
from ixy.errors import AddressError
from ixy.sim.rack import FLIGHT, INWARD_PART, OUTWARD_PART, SLOT, SPEED, TIMED
from ixy.sim.wires import flight
from ixy.sim.wires.tape import WORD, mapped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.sim.wires.wire import Options, Port

OPTIONS = ("delay", "jitter", "loss", "duplicate", "reorder", "corrupt", "seed")

_TIMES = {"ns": 1, "us": 1000, "ms": 1000**2, "s": 1000**3}
_SHARE = 1 << 32
MAX_SEED = (1 << 63) - 1


class Impaired(NamedTuple):
    """How many frames a direction of a cable has done what to.

    Attributes:
        sent: frames that have set out, by the card that sent them.
        arrived: frames that were handed on at the other end, copies too.
        lost, duplicated, reordered, corrupted: see above.
        overflowed: lost, as there was no room for them.
    """

    sent: int
    arrived: int
    lost: int
    duplicated: int
    reordered: int
    corrupted: int
    overflowed: int


@dataclass(frozen=True)
class Impairments:
    """What an address says a cable does. Times in nanoseconds, probabilities in 2**-32."""

    delay: int = 0
    jitter: int = 0
    loss: int = 0
    duplicate: int = 0
    reorder: int = 0
    corrupt: int = 0
    seed: int = 0

    @classmethod
    def parse(cls, options: Options) -> Impairments | None:
        """What the address says; None if it says nothing.

        Raises:
            AddressError: a value makes no sense.
        """
        if not set(OPTIONS[:-1]) & options.values.keys():  # a seed alone is the card's
            return None
        times = {option: _parsed(options, option, _TIMES, "0ns", "10s") for option in OPTIONS[:2]}
        shares = {option: _parsed(options, option, {"": _SHARE}, "0", "1") for option in OPTIONS[2:6]}
        found = cls(**times, **shares, seed=options.number("seed", 0, MAX_SEED) or 0)
        if found.jitter > found.delay:
            raise AddressError(f"{options.address}: jitter goes up to the delay: no frame arrives before it is sent")
        if found.reorder and not found.delay:
            raise AddressError(f"{options.address}: reorder needs a delay: who is to be overtaken must be under way")
        return found

    def lay(self, words: NDArray[np.int64], place: int, direction: int) -> None:
        """Make ready a flight of this kind. Its two directions draw different numbers."""
        flight.lay(words, place)
        words[place + flight.DELAY], words[place + flight.JITTER] = self.delay, self.jitter
        words[place + flight.LOSS], words[place + flight.DUPLICATE] = self.loss, self.duplicate
        words[place + flight.REORDER], words[place + flight.CORRUPT] = self.reorder, self.corrupt
        words[place + flight.SEED] = self.seed ^ direction << 62


def _parsed(options: Options, option: str, units: dict[str, int], low: str, high: str) -> int:
    """The value of an option that has a unit, 0 if it is not given."""
    name, text = f"{options.address}: {option}", options.values.get(option)
    return 0 if text is None else quantity(name, text, units, low, high, error=AddressError)


@contextmanager
def impaired(port: Port, impairments: Impairments | None) -> Generator[None]:
    """Frames are impaired on their way from the port and to it meanwhile, unless there is nothing that does."""
    if impairments is None:
        yield
        return
    slot, words = port.card.index * SLOT, port.rack.tape_words
    with mapped(slot + OUTWARD_PART, flight.SIZE), mapped(slot + INWARD_PART, flight.SIZE):
        ways = (slot + OUTWARD_PART) // WORD, (slot + INWARD_PART) // WORD
        for direction, way in enumerate(ways):
            impairments.lay(words, way, direction)
        with port.machine.paused():
            port.output[FLIGHT], port.input[FLIGHT] = ways
            port.output[TIMED] = 1
        try:
            yield
        finally:
            port.output[FLIGHT] = port.input[FLIGHT] = 0  # who looks reads it once
            port.output[TIMED] = bool(port.output[SPEED])
            with port.machine.paused():  # the turn that is under way ends before the memory goes
                pass


def awaited(port: Port) -> int | None:
    """When the next frame is due that is under way on the port's wire; None if none is."""
    words = port.rack.tape_words
    ways = [way for end in (port.output, port.input) if (way := int(end[FLIGHT]))]
    return min((due for way in ways if (due := flight.awaited(words, way)) is not None), default=None)


def under_way(words: NDArray[np.int64], way: int) -> int:
    """How many frames of a flight have set out and not arrived."""
    return int(words[way + flight.UNDER_WAY])


def counts(words: NDArray[np.int64], way: int) -> Impaired:
    """What became of the frames of a flight so far."""
    lost, duplicated, _, reordered, corrupted, overflowed = words[way + flight.COUNTED :][:6].tolist()
    sent, arrived = words[way + flight.SENT :][:2].tolist()
    return Impaired(sent, arrived, lost, duplicated, reordered, corrupted, overflowed)
