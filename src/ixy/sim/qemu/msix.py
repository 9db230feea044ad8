"""MSI-X: interrupts as messages, each vector with its own address, data and mask (PCI Local Bus 3.0, 6.8.2)."""

from __future__ import annotations

from ixy.sim.card.config import MSIX_VECTORS, PENDING_OFFSET

_ENTRY = 16  # bytes: address (8), data (4), vector control (4)
_TABLE_SIZE = MSIX_VECTORS * _ENTRY
_MASKED = 1


class Msix:
    """The vector table and the pending bits, as software finds them in the BAR."""

    def __init__(self) -> None:
        self._table = bytearray(_TABLE_SIZE)
        self._pending = 0
        self.reset()

    def reset(self) -> None:
        """Every vector masked, nothing pending."""
        self._table[:] = (bytes(12) + _MASKED.to_bytes(4, "little")) * MSIX_VECTORS
        self._pending = 0

    def read(self, offset: int, size: int) -> int:
        """`size` bytes of the BAR at `offset`."""
        if offset < _TABLE_SIZE:
            return int.from_bytes(self._table[offset : offset + size], "little")
        if PENDING_OFFSET <= offset < PENDING_OFFSET + MSIX_VECTORS // 8:
            return self._pending >> 8 * (offset - PENDING_OFFSET) & (1 << 8 * size) - 1
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Write to the BAR; only the table is writable."""
        if offset + size <= _TABLE_SIZE:
            self._table[offset : offset + size] = value.to_bytes(size, "little")

    def request(self, vector: int) -> None:
        """Mark the vector as pending."""
        self._pending |= 1 << vector

    def take(self) -> list[tuple[int, int]]:
        """The messages, as (address, data), of the pending vectors that are not masked; they are pending no more."""
        ready = [
            vector for vector in range(MSIX_VECTORS) if self._pending >> vector & 1 and not self._is_masked(vector)
        ]
        for vector in ready:
            self._pending &= ~(1 << vector)
        return [(self.read(_ENTRY * vector, 8), self.read(_ENTRY * vector + 8, 4)) for vector in ready]

    def _is_masked(self, vector: int) -> bool:
        return bool(self.read(_ENTRY * vector + 12, 4) & _MASKED)
