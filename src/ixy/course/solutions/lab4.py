"""Lab 4: DMA memory. The page is lab4.md."""

from ixy.course import Bus, Memory

DESCRIPTOR = 16  # bytes
RING_ALIGNMENT = 128  # 8.2.3.8.1, 8.2.3.9.5
BUFFER = 2048  # bytes: room for the longest frame, 1518

YOURS = ("halves", "new_ring", "Pool.take", "Pool.give")


def halves(address: int) -> tuple[int, int]:
    """The lower and the upper 32 bits of an address, as two registers take it."""
    return address & 0xFFFFFFFF, address >> 32


def new_ring(bus: Bus, size: int) -> Memory:
    """Memory for a ring of `size` descriptors, where a card accepts one, and all zeros."""
    memory = bus.allocate(size * DESCRIPTOR, RING_ALIGNMENT)
    memory.write(0, bytes(size * DESCRIPTOR))
    return memory


class Pool:
    """Packet buffers, of which each is free, or has one user. A buffer is known by where it begins in `memory`."""

    def __init__(self, bus: Bus, count: int) -> None:
        self.memory = bus.allocate(count * BUFFER, BUFFER)
        self.free = [number * BUFFER for number in range(count)]
        self.used: set[int] = set()

    def take(self) -> int | None:
        """A free buffer, which is used from now on; None if there is none."""
        if not self.free:
            return None
        buffer = self.free.pop()
        self.used.add(buffer)
        return buffer

    def give(self, buffer: int) -> None:
        """Give a buffer back. `ValueError` if it is not used: who gives it back twice has made a mistake."""
        if buffer not in self.used:
            raise ValueError(f"buffer {buffer} is free already, or is none")
        self.used.remove(buffer)
        self.free.append(buffer)

    def address(self, buffer: int) -> int:
        """Where the card sees a buffer."""
        return self.memory.address + buffer
