"""The rings of a device at the device's end: they stay as long as it, whatever front ends come and go."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.drivers.linux.rings import CountingRing, CountingTxRing
from ixy.drivers.rings import DROPPED, STARVED, Ring
from ixy.drivers.vhost import datapath, offloads
from ixy.drivers.vhost.state import (
    ABLE,
    ASKED,
    BAD_CALL,
    BREACHES,
    BROKEN,
    CALL,
    CALLING,
    CHUNK,
    DESCRIPTORS,
    DEVICE,
    DRIVER,
    HEADER,
    MERGEABLE,
    MERGED,
    PACKED,
    PARTS,
    PLACE,
    REGION,
    RUNNING,
    SIZE,
    STATE_WORDS,
    UNCHANGED,
    GuestRing,
    occupy,
    vacate,
)
from ixy.drivers.virtio.headers import CUTS, CUTS_ECN, SUMS
from ixy.jit import Direct
from ixy.packets.buffers import MAX_PARTS
from ixy.packets.packets import Packets, new_packets, slots
from ixy.packets.pool import pools
from ixy.registers.virtio import EVENT_DISABLE, HEADER_BYTES, NO_NOTIFY, NUM_BUFFERS
from ixy.unsafe import own_lines

if TYPE_CHECKING:
    from ixy.drivers import RxSingle
    from ixy.drivers.vhost.memory import GuestMemory
    from ixy.packets.mempool import Mempool

_PATIENCE = 10.0  # seconds that a poll is given to end: an interpreted one may have been left by an exception
_CALL_PATIENCE = 0.1  # seconds that the front end may let one wait that is calling it
_ASKED = {"checksum": SUMS, "segmentation": CUTS}
_WORD = (1).to_bytes(8, "little")  # what an eventfd is written


class Setting(NamedTuple):
    """A ring as a front end has set it up.

    Attributes:
        size: descriptors.
        descriptors, driver, device: where its parts lie in shared memory, see `Layout` of the other end.
        place: the place whose turn it is, counted without wrapping.
        packed, mergeable: 1 or 0.
        header: bytes before each frame.
        call: the file by which to call the front end, -1 for none.
        able: what it does, and lets us do, to packets, see `virtio.headers`.
    """

    size: int
    descriptors: int
    driver: int
    device: int
    place: int
    packed: int
    mergeable: int
    header: int
    call: int
    able: int


class _GuestRing(CountingRing):
    """What both directions have. Kernels work on the ring while nobody holds it by `stopped`."""

    state: GuestRing

    @contextmanager
    def stopped(self) -> Generator[None]:
        """Within the block no kernel touches shared memory: a poll that is under way ends first."""
        words = self.state.state
        begun = time.monotonic()
        while not (mine := occupy(words)) and (waited := time.monotonic() - begun) < _PATIENCE:
            if waited > _CALL_PATIENCE and self.calling:
                self.release()
            time.sleep(0.0001)
        try:
            yield
        finally:
            if mine:
                vacate(words)

    def set_up(self, setting: Setting) -> None:
        """Begin with a ring. Within `stopped`."""
        words = self.state.state
        words[[SIZE, DESCRIPTORS, DRIVER, DEVICE, PLACE, PACKED, MERGEABLE, HEADER, CALL, ABLE]] = setting
        words[BROKEN] = words[REGION] = 0
        place, quiet = (setting.device + 2, EVENT_DISABLE) if setting.packed else (setting.device, NO_NOTIFY)
        self.state.halves[place >> 1] = quiet
        words[RUNNING] = 1

    def shut_down(self) -> None:
        """Go without a ring. Within `stopped`."""
        self.state.state[RUNNING] = 0
        self.state.state[CALL] = -1

    @property
    def has_begun(self) -> bool:
        """Whether there is a ring, even one that has stopped."""
        return bool(self.state.state[RUNNING])

    @property
    def running(self) -> bool:
        return self.has_begun and not self.breach

    @property
    def place(self) -> int:
        """The place whose turn it is."""
        return int(self.state.state[PLACE])

    @property
    def breach(self) -> str | None:
        """Why the ring has stopped: what the front end did; None while it has not."""
        return BREACHES.get(int(self.state.state[BROKEN]))

    @property
    def calling(self) -> bool:
        """Whether the front end is being called just now."""
        return bool(self.state.state[CALLING])

    def release(self) -> None:
        """Let go on who calls the front end and is kept waiting: it has filled the file and made it one that waits.
        The ring stops."""
        self.state.state[BROKEN] = BAD_CALL
        with suppress(OSError):
            os.preadv(int(self.state.state[CALL]), [bytearray(8)], -1, os.RWF_NOWAIT)

    @property
    def dropped(self) -> int:
        """Frames that did not fit into a buffer, ours or the front end's."""
        return int(self.state.state[DROPPED])


class VhostRxRing(Ring, _GuestRing):
    """What the front end sends; see `ixy.drivers.RxRing`. It holds no buffers: frames lie in the front end's.

    Args:
        memory: the front end's.
        size: how many descriptors it is to count as.
        pool: where buffers come from.
        metadata: what is told of each packet.
    """

    ready = staticmethod(datapath.ready)
    single: RxSingle | None = None

    def __init__(self, memory: GuestMemory, size: int, pool: Mempool, metadata: Sequence[str]) -> None:
        super().__init__(_state(memory, slots(size), pool.number))
        special = not {"segments", "parts"}.isdisjoint(metadata)
        self.kernel = offloads.rx_batch if special else datapath.rx_batch
        self.parts = MAX_PARTS if "parts" in metadata else 1
        self.state.state[PARTS] = self.parts
        self.pool = pool
        self.metadata: Sequence[str] = tuple(metadata)
        self._want = Direct(datapath.want_kicks)

    def want_kicks(self, wanted: bool) -> None:
        """Have the front end tell of the next frame, or not. One that came before need not be told: look once more."""
        self._want((), self.state, wanted)

    def compile_end(self) -> None:
        """Besides: what front ends take that come later."""
        super().compile_end()
        with self.stopped():
            pass

    @property
    def starved(self) -> int:
        return int(self.state.state[STARVED])


class VhostTxRing(CountingTxRing, _GuestRing):
    """What the front end receives; see `ixy.drivers.TxRing`.

    Args:
        memory: the front end's.
        size: how many packets may wait until it has buffers for them.
        metadata: the columns of packets that are sent.
        does: what is done to them, by the front end or here, see `ixy.open`.
    """

    holds_chains = True

    def __init__(self, memory: GuestMemory, size: int, metadata: Sequence[str] = (), does: Sequence[str] = ()) -> None:
        special = bool(does) or "parts" in metadata
        columns = [name for name in ("flags", "segments", "parts") if special and name in metadata]
        super().__init__(_state(memory, new_packets(size, columns), -1, MERGED if special else CHUNK))
        kernels = offloads.transmit if special else datapath.transmit
        self.kernel, self.room, self._flush = kernels.batch, kernels.room, Direct(kernels.flush)
        self.offloads: Sequence[str] = tuple(does)
        self.parts = MAX_PARTS if "parts" in metadata else 1
        self.state.state[ASKED] = sum(asked for name, asked in _ASKED.items() if name in does)

    def set_up(self, setting: Setting) -> None:
        """Of what the front end does only what was asked for is made use of."""
        super().set_up(setting)
        self.state.state[ABLE] &= self.state.state[ASKED] | CUTS_ECN

    @property
    def unchanged(self) -> int:
        """Packets that were sent as they are: what was asked for could not be done to them."""
        return int(self.state.state[UNCHANGED])

    def sent(self) -> int:
        self._flush((), self.state, pools())
        return self.packets - self.in_flight


def _state(memory: GuestMemory, held: Packets, pool: int, most: int = CHUNK) -> GuestRing:
    """A ring before there is a front end; `most` of that one's buffers are used at once."""
    header = np.zeros(HEADER_BYTES, np.uint8)
    header[NUM_BUFFERS] = 1
    state = own_lines(STATE_WORDS)
    state[CALL] = -1
    return GuestRing(
        memory=memory.bytes,
        halves=memory.bytes.view(np.uint16),
        longs=memory.bytes.view(np.uint32),
        words=memory.bytes.view(np.int64),
        regions=memory.regions,
        places=own_lines(most),
        sizes=own_lines(most),
        names=own_lines(most),
        held=held,
        state=state,
        bytes=pools().bytes.reshape(-1),
        header=header,
        message=np.frombuffer(_WORD, np.uint8).copy(),
        pool=pool,
    )
