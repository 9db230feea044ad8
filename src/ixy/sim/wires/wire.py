"""What all wires have in common.

A wire is plugged into a card's port. It feeds frames to the card, takes those that the card sends, or both. A kind of
wire is a class. Its fields are what an address says of it, its kernels what the cards' thread runs; `plugged` is how it
is plugged in and pulled out.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ixy.arguments import whole_number
from ixy.errors import AddressError
from ixy.jit import compiled
from ixy.sim.rack import ALARM, BROKEN, INPUT_PART, KIND, NOTHING, OUTPUT_PART, SLOT, Rack
from ixy.sim.wires.tape import mapped
from ixy.unsafe import store_release

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.sim.card.registers import Card
    from ixy.sim.machine import Machine


CARD_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@compiled
def snap(inward: NDArray[np.int64], outward: NDArray[np.int64], control: NDArray[np.int64]) -> None:
    """The wire with these two ends has broken: there is no link any more, and the owner is told."""
    inward[KIND] = outward[KIND] = NOTHING
    inward[BROKEN] = 1
    store_release(control, ALARM, 1)


@dataclass(frozen=True)
class Options:
    """What an address says: `sim:NAME` and options.

    Attributes:
        address: as it was written, for messages.
        name: of the card.
        values: the options' texts.
    """

    address: str
    name: str
    values: dict[str, str]

    def number(self, option: str, low: int, high: int) -> int | None:
        """A whole number, such as 1e6; None if it is not given.

        Raises:
            AddressError: no whole number, or out of bounds.
        """
        if option not in self.values:
            return None
        return whole_number(f"{self.address}: {option}", self.values[option], low, high, error=AddressError)


@dataclass(frozen=True)
class Port:
    """Where a wire is plugged in.

    Attributes:
        machine, card: whose port it is.
        rack: the machine's.
        input, output: the wire's words of either end, shape (END_WORDS,), int64.
        input_part, output_part: where on the tape the memory of either end begins.
    """

    machine: Machine
    card: Card

    @property
    def rack(self) -> Rack:
        return self.machine.rack

    @property
    def input(self) -> NDArray[np.int64]:
        return self.rack.inputs[self.card.index]

    @property
    def output(self) -> NDArray[np.int64]:
        return self.rack.outputs[self.card.index]

    @property
    def input_part(self) -> int:
        return self.card.index * SLOT + INPUT_PART

    @property
    def output_part(self) -> int:
        return self.card.index * SLOT + OUTPUT_PART

    def input_memory(self, size: int) -> AbstractContextManager[None]:
        """Memory at `input_part`, while the wire is plugged in."""
        return mapped(self.input_part, size)

    def output_memory(self, size: int) -> AbstractContextManager[None]:
        """Memory at `output_part`; 1 MiB at most."""
        return mapped(self.output_part, size)


class Wire(ABC):
    """One wire, as an address describes it."""

    option: ClassVar[str]
    """The option of an address that asks for it."""

    extras: ClassVar[tuple[str, ...]] = ()
    """Options that go with it."""

    answer: ClassVar[str | None] = None
    """The option of the wire that stands at the other end of the same card, if the address names none."""

    delivers: ClassVar[bool] = False
    takes: ClassVar[bool] = False
    """Which ends of the port it occupies."""

    stays: ClassVar[bool] = False
    """It is not pulled out when its card is closed: another card has it, too."""

    kind: ClassVar[int]
    """The number by which kernels know it."""

    next_frame: ClassVar[Callable[[Rack, int, int], int] | None] = None
    """Kernel: the length of the next frame for a card by now, in nanoseconds of the clock if the wire is paced; 0 if
    there is none. It is delivered. Where it lies on the tape is in the input's word FRAME."""

    emit: ClassVar[Callable[[Rack, int, int, int], int] | None] = None
    """Kernel: a card sends a frame that lies at a place of the tape, with a length. The card at which it arrives, or -1
    if it goes elsewhere."""

    @property
    def paced(self) -> bool:
        """Whether frames have their times; the input's word PACED says the same."""
        return False

    @property
    def timed(self) -> bool:
        """Whether frames take time on it; the output's word TIMED says the same."""
        return False

    @property
    def inlined(self) -> bool:
        """Whether its kernels are not called from slots, but part of the cards' loop: what shows how fast a path is."""
        return False

    @property
    def reads(self) -> str | None:
        """The file that it reads, if any."""
        return None

    @property
    def writes(self) -> str | None:
        """The file that it writes, if any; "-" is standard output."""
        return None

    @property
    def meets_at(self) -> str | None:
        """The path of the socket at which it meets another process, if it does."""
        return None

    @classmethod
    def named(cls, values: dict[str, str]) -> bool:
        """Whether the options of an address ask for this kind."""
        return cls.option in values

    @classmethod
    @abstractmethod
    def parse(cls, options: Options) -> Wire:
        """The wire that an address describes; `option` is among its options.

        Raises:
            AddressError: a value makes no sense.
        """

    @abstractmethod
    def plugged(self, port: Port) -> AbstractContextManager[None]:
        """The wire is plugged in meanwhile: its words are set, its files open, its memory there.

        Raises:
            Error: it cannot be plugged in.
            CaptureError: on leaving: what the card sent could not all be written to its file.
        """

    watched: ClassVar[bool] = False
    """Somebody at the other end may come and go without a word: `linked` is asked now and then."""

    def linked(self, port: Port) -> bool:  # noqa: ARG002
        """Whether somebody is at the other end."""
        return True

    def due(self, port: Port) -> int | None:  # noqa: ARG002
        """When it has its next frame for the card, in nanoseconds of the monotonic clock; None if that is unknown."""
        return None

    def files(self, port: Port) -> Sequence[int]:  # noqa: ARG002
        """Files that are readable when it has a frame for the card; none unless the input's KIND is this wire's, for
        then they may be closed at any moment."""
        return ()

    def tend(self, port: Port) -> None:  # noqa: B027
        """See to the other end, before `linked` is asked; no card moves meanwhile. For a wire that is watched."""

    def broken(self, port: Port) -> str | None:  # noqa: ARG002
        """What has happened if a kernel found the wire broken, for a message; None if that is not worth one."""
        return "the wire is broken: the link is down"
