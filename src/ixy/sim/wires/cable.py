"""A cable between two cards: what one sends arrives at the other."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from ixy.errors import AddressError
from ixy.jit import compiled
from ixy.sim.rack import FLIGHT, KIND, OWN_WORDS, Rack
from ixy.sim.wires import impair
from ixy.sim.wires.impair import Impairments, impaired
from ixy.sim.wires.stream import is_path
from ixy.sim.wires.wire import CARD_NAME, Options, Port, Wire

PEER = OWN_WORDS  # the card at the other end


@compiled
def emit(rack: Rack, card: int, _start: int, _length: int) -> int:
    return rack.outputs[card, PEER]


@dataclass(frozen=True)
class Cable(Wire):
    """`sim:a,cable=b`. It stays as long as one of its ends is open.

    Attributes:
        peer: the name of the other card, which need not be open.
        impairments: of both directions, as long as the card is open whose address says so. A card whose own address
            says some is subject to those in what it sends.
    """

    peer: str
    impairments: Impairments | None = None

    option = "cable"
    extras = impair.OPTIONS
    delivers = takes = stays = True
    emit = staticmethod(emit)

    @classmethod
    def named(cls, values: dict[str, str]) -> bool:
        return cls.option in values and not is_path(values)

    @classmethod
    def parse(cls, options: Options) -> Cable:
        peer = options.values[cls.option]
        if not CARD_NAME.fullmatch(peer):
            raise AddressError(
                f"{options.address}: no card can be named {peer!r}: write cable=NAME or cable=unix:/path/to/socket"
            )
        return cls(peer, Impairments.parse(options))

    @property
    def far(self) -> str:
        """The other end, as a user knows it."""
        return f"sim:{self.peer}"

    @property
    def timed(self) -> bool:
        return self.impairments is not None

    def due(self, port: Port) -> int | None:
        return impair.awaited(port)

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
        with impaired(port, self.impairments):
            yield


def way(rack: Rack, card: int, arriving: bool) -> int:
    """Where the flight lies (`flight.py`) in which frames are that a card sends, or that arrive at it; 0: in none."""
    peer = int(rack.outputs[card, PEER]) if rack.outputs[card, KIND] == Cable.kind else None
    sender, receiver = (peer, card) if arriving else (card, peer)
    outward = 0 if sender is None else int(rack.outputs[sender, FLIGHT])
    inward = 0 if receiver is None else int(rack.inputs[receiver, FLIGHT])
    return outward or inward
