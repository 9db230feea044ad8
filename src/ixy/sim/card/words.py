"""A card's registers as the words of the rack that hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ixy.registers import Register


class Words:
    """What holds the registers of one card, for a part of it that works on them.

    Args:
        registers: BAR 0, shape (BAR0_SIZE / 4,), uint32.
    """

    def __init__(self, registers: NDArray[np.uint32]) -> None:
        self._registers = registers

    def _get(self, register: Register) -> int:
        return int(self._registers[register.offset // 4])

    def _decode(self, register: Register) -> dict[str, int]:
        return register.decode(self._get(register))

    def _put(self, register: Register, value: int) -> None:
        self._registers[register.offset // 4] = value & 0xFFFFFFFF

    def _set(self, register: Register, **fields: int) -> None:
        self._put(register, self._get(register) & ~register.mask(*fields) | register.value(**fields))
