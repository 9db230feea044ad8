"""What commands that handle packets have in common. Importing this module costs nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How devices are opened, how packets are handled, and when a run ends.

    Attributes:
        ring, pool: descriptors per ring and packet buffers per receive queue; None for as many as suit the ring.
        force: take a card even if the kernel has its interface up with an address or routes.
        link_timeout: seconds to wait for a link.
        batch: the most packets handled at a time.
        count, seconds: the run ends after so many packets, or seconds; None for no limit.
        as_json: report in JSON.
    """

    ring: int = 512
    pool: int | None = None
    force: bool = False
    link_timeout: float = 10.0
    batch: int = 32
    count: int | None = None
    seconds: float | None = None
    as_json: bool = False

    @property
    def limited(self) -> bool:
        """Whether the run ends by itself."""
        return self.count is not None or self.seconds is not None
