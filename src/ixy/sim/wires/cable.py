"""A cable between two cards: what one sends arrives at the other."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from ixy.errors import AddressError
from ixy.jit import compiled
from ixy.sim.rack import KIND, OWN_WORDS, Rack
from ixy.sim.wires.wire import Options, Port, Wire

PEER = OWN_WORDS  # the card at the other end


@compiled
def emit(rack: Rack, card: int, _start: int, _length: int) -> int:
    return rack.outputs[card, PEER]


@dataclass(frozen=True)
class Cable(Wire):
    """`sim:a,cable=b`. It stays as long as one of its ends is open.

    Attributes:
        peer: the name of the other card, which need not be open.
    """

    peer: str

    option = "cable"
    delivers = takes = stays = True
    emit = staticmethod(emit)

    @classmethod
    def parse(cls, options: Options) -> Cable:
        return cls(options.values[cls.option])

    @contextmanager
    def plugged(self, port: Port) -> Generator[None]:
        """Plug in both ends.

        Raises:
            AddressError: one of them is taken, or the cards are one.
        """
        with port.machine.paused():
            card, peer, outputs = port.card, port.machine.card(self.peer), port.rack.outputs
            if peer is card:
                raise AddressError(f"sim:{card.name}: a cable to itself: name another card")
            for near, far in ((card, peer), (peer, card)):
                fits = outputs[near.index, KIND] == self.kind and outputs[near.index, PEER] == far.index
                if near.wired and not fits:
                    raise AddressError(f"sim:{near.name}: something else is plugged in already")
            for near, far in ((card, peer), (peer, card)):
                outputs[near.index, KIND], outputs[near.index, PEER] = self.kind, far.index
        yield
