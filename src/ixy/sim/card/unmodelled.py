"""What software does with registers that the model does not have: it is counted, and told once."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ixy.registers.i82599_names import name_of

log = logging.getLogger("ixy.sim")


@dataclass
class Use:
    """How often a register, or one of several alike, was read and written.

    Attributes:
        offset: of the first one that was.
    """

    offset: int
    reads: int = 0
    writes: int = 0


class Unmodelled:
    """The uses of one card.

    Args:
        card: its name, for messages.

    Attributes:
        uses: by the register's name, or its offset where no name is known.
    """

    def __init__(self, card: str) -> None:
        self._card = card
        self.uses: dict[str, Use] = {}

    def read(self, offset: int) -> None:
        self._use(offset, "reads").reads += 1

    def write(self, offset: int) -> None:
        self._use(offset, "writes").writes += 1

    def _use(self, offset: int, verb: str) -> Use:
        name = name_of(offset) or f"{offset:#07x}"
        if name not in self.uses:
            self.uses[name] = Use(offset)
            register = f"{name} ({offset:#07x})" if name_of(offset) else f"the register at {name}"
            log.warning(
                "sim:%s: the driver %s %s, which is not modelled: it is memory, and does nothing",
                self._card,
                verb,
                register,
            )
        return self.uses[name]
