"""What commands that handle packets have in common. Importing this module costs nothing."""

from __future__ import annotations

from dataclasses import dataclass

from ixy.arguments import integer, number
from ixy.drivers.offloads import MAX_MTU, MIN_MTU, OFFLOADS, check_offloads
from ixy.errors import ConfigurationError
from ixy.formats.frames import MAX_FRAME

MIN_RING, MAX_RING = 64, 4096  # descriptors
MAX_POOL = 64_000  # buffers
MAX_COUNT = 10**15  # packets: 11 days at the highest rate
MAX_RATE = 10**9  # packets per second; times 292 years it still is a 64-bit number
MAX_SECONDS = 10**9  # 31 years
MAX_QUEUES = 64  # pairs; a device may have fewer
MAX_CORES = 1 << 16
MAX_SNAPLEN = 262144  # bytes; what libpcap takes for a sane length (pcap/pcap-int.h: MAXIMUM_SNAPLEN)
_HEADER = 14  # bytes of a frame before its payload: two addresses and a type
_ON_THEIR_WAY = 32  # buffers that a pool needs besides those of its ring


@dataclass(frozen=True)
class Settings:
    """How devices are opened, how packets are handled, and when a run ends.

    Attributes:
        ring, pool: descriptors per ring, a power of two from 64 to 4096, and packet buffers per receive queue, 32 more
            than the ring has to 64,000; None for as many as suit the ring.
        force: take a card even if the kernel has its interface up with an address or routes.
        link_timeout: seconds to wait for a link.
        batch: the most packets handled at a time, up to a whole ring.
        mtu: the longest payload of a frame, 68 to 65535 bytes; None for what devices have by themselves.
        offloads: what devices are to do to packets, as `ixy.open` takes it.
        count, seconds: the run ends after so many packets, 1 to 10^15, or seconds; None for no limit.
        as_json: report in JSON.
        sandbox: give privileges up before the run; None for whoever has some.

    Raises:
        ConfigurationError: a value is out of bounds.
        TypeError: a value is of a wrong type.
    """

    ring: int = 512
    pool: int | None = None
    force: bool = False
    link_timeout: float = 10.0
    batch: int = 32
    mtu: int | None = None
    offloads: tuple[str, ...] = ()
    count: int | None = None
    seconds: float | None = None
    as_json: bool = False
    sandbox: bool | None = None

    def __post_init__(self) -> None:
        self._check("ring", self._ring())
        self._check("batch", integer("batch", self.batch, 1, self.ring))
        self._check("link_timeout", number("link_timeout", self.link_timeout, 0, MAX_SECONDS))
        object.__setattr__(self, "offloads", check_offloads("--offload", self.offloads, OFFLOADS))
        if self.pool is not None:
            self._check("pool", integer("pool", self.pool, self.ring + _ON_THEIR_WAY, MAX_POOL))
        if self.mtu is not None:
            self._check("mtu", integer("mtu", self.mtu, MIN_MTU, MAX_MTU))
        if self.count is not None:
            self._check("count", integer("count", self.count, 1, MAX_COUNT))
        if self.seconds is not None:
            self._check("seconds", number("seconds", self.seconds, 0, MAX_SECONDS))

    @property
    def limited(self) -> bool:
        """Whether the run ends by itself."""
        return self.count is not None or self.seconds is not None

    @property
    def longest_made(self) -> int:
        """Bytes of the longest frame that commands make, without its check sequence."""
        return max(MAX_FRAME, (self.mtu or 0) + _HEADER)

    def _ring(self) -> int:
        size = integer("ring", self.ring, MIN_RING, MAX_RING)
        if size.bit_count() != 1:
            raise ConfigurationError(f"ring {size}: powers of two from {MIN_RING} to {MAX_RING} are possible")
        return size

    def _check(self, name: str, value: float) -> None:
        """Keep a checked value, as Python's own type."""
        object.__setattr__(self, name, value)
