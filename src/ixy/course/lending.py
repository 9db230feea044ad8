"""Who has the buffers of a student's pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ixy.course.bench import Bench
    from ixy.course.watch import Ring


class Lent:
    """A student's pool, by whose methods it is seen who has each buffer.

    Attributes:
        out: the buffers that were taken and not given back.
    """

    def __init__(self, bench: Bench, pool: Any) -> None:
        self.out: set[int] = set()
        self._free: set[int] = set()  # addresses of those that were lent and are back
        self._bench = bench
        self._pool = pool
        self._take, self._give = pool.take, pool.give
        pool.take, pool.give = self.take, self.give

    def take(self) -> int | None:
        buffer = self._take()
        if buffer is not None:
            self.out.add(buffer)
            self._free.discard(self._pool.address(buffer))
        return buffer

    def give(self, buffer: int) -> None:
        if buffer not in self.out:
            self._bench.note(
                "a buffer goes back to the pool that is free already: a descriptor that was cleaned, or is not handed "
                "over yet, has DD from an earlier round",
                "DD",
                "7.2.3.5",
            )
        address = self._pool.address(buffer)
        for watch in self._bench.bus.watches.values():
            for ring in watch.rings:
                if any(ring.buffer(slot)[0] == address for slot in ring.owned()):
                    self._note(ring)
        self._give(buffer)
        self.out.discard(buffer)
        self._free.add(address)

    def is_free(self, address: int) -> bool:
        """Whether the buffer that a card sees there is nobody's."""
        return address in self._free

    def _note(self, ring: Ring) -> None:
        if ring.receives:
            self._bench.note(
                f"a buffer goes back to the pool that still lies in {ring.name}: put another one there first",
                "Packet Buffer Address",
                "7.1.9",
            )
        else:
            self._bench.note(
                f"a buffer goes back to the pool before the card has sent it: {ring.name} has it until DD is set",
                "DD",
                "7.2.3.5",
            )
