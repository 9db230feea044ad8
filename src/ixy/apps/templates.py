"""Frames for the generator to send: its own, those of a capture file, or what Scapy builds."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.errors import ConfigurationError
from ixy.formats.reading import read
from ixy.packets.buffers import BUFFER_SIZE
from ixy.packets.scapy import asking_nobody, frame_of, library

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("ixy.apps")

_MOST = 1 << 16  # frames that a Scapy expression may stand for: a careless one has millions
_HEADER = 14  # bytes: two addresses and a type or length


class Templates:
    """Frames in a row. Short ones are padded when they are sent, to the least that Ethernet sends.

    Args:
        data: in which the frames lie, shape (any,), uint8; of a capture file, the mapped file itself.
        starts, sizes: of each frame, shape (n,), int64; those that have no whole header or are too long are left out.
        source: where they come from, for messages.
        longest: bytes that a frame may have; without jumbo frames, what a packet buffer holds.

    Attributes:
        data: see above.
        starts, sizes: of the frames that are sent, shape (n,), int64.
        left_out: how many frames were left out.
        damage: one line on why the source ended early, or None.

    Raises:
        ConfigurationError: no frame is left.
    """

    def __init__(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        sizes: NDArray[np.int64],
        source: str,
        longest: int = BUFFER_SIZE,
    ) -> None:
        short, long = sizes < _HEADER, sizes > longest
        if np.any(short):
            log.warning("%s: left out frames without a whole Ethernet header: %d", source, np.count_nonzero(short))
        if np.any(long):
            bound = f"a buffer of {BUFFER_SIZE}" if longest == BUFFER_SIZE else f"the MTU allows, {longest}"
            log.warning("%s: left out frames longer than %s bytes: %d", source, bound, np.count_nonzero(long))
        fitting = ~(short | long)
        if not np.any(fitting):
            raise ConfigurationError(f"{source}: no packet to send")
        self.data, self.starts, self.sizes = data, starts[fitting], sizes[fitting]
        self.left_out = len(sizes) - len(self.sizes)
        self.damage: str | None = None

    @classmethod
    def of(cls, frames: Iterable[bytes], source: str, longest: int = BUFFER_SIZE) -> Templates:
        """Those that are given one by one.

        Raises:
            ConfigurationError: none fits.
            TypeError: a frame is no bytes.
        """
        frames = [bytes(memoryview(frame)) for frame in frames]
        sizes = np.array([len(frame) for frame in frames], np.int64)
        return cls(np.frombuffer(b"".join(frames), np.uint8), np.cumsum(sizes) - sizes, sizes, source, longest)

    def __len__(self) -> int:
        return len(self.sizes)


def from_pcap(path: str, longest: int = BUFFER_SIZE) -> Templates:
    """The frames of a capture file, up to so many bytes long; of a damaged one, those before the damage.

    Raises:
        CaptureError: the file cannot be read.
        ConfigurationError: it holds no packet that can be sent.
    """
    capture = read(path)
    if capture.cut:
        log.warning("%s: packets that were cut when captured, and are sent so: %d", path, capture.cut)
    templates = Templates(capture.data, capture.offsets, capture.lengths, path, longest)
    if capture.damage:
        templates.damage = f"{path}: damaged, used the {len(capture)} packets before: {capture.damage}"
    return templates


def from_scapy(expression: str, longest: int = BUFFER_SIZE) -> Templates:
    """The frames, up to so many bytes long, that a Scapy expression such as `Ether()/IP(dst="10.0.0.0/30")/UDP()`
    stands for; raises as `scapy_frames`, and if there are none."""
    return Templates.of(scapy_frames(expression, "--scapy"), "--scapy", longest)


def scapy_frames(expression: str, said: str = "scapy") -> list[bytes]:
    """The frames that a Scapy expression stands for.

    Those that name no destination go to everybody: who has an IP address, Scapy would ask on a network of the machine.

    Args:
        said: how the user said so, for messages.

    Raises:
        ConfigurationError: Scapy is not installed, the expression is wrong, or it stands for too many frames.
    """
    logging.getLogger("scapy.runtime").setLevel(logging.ERROR)  # it warns of interfaces, which nobody uses here
    scapy = library(said)
    try:
        with asking_nobody(scapy):
            return _frames(scapy, eval(expression, dict(scapy.__dict__)))
    except Exception as error:  # the expression is the user's, and may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigurationError(f"{said} {expression!r}: {reason}") from error


def _frames(scapy: Any, made: Any) -> list[bytes]:
    """The frames that what Scapy made stands for.

    Raises:
        ValueError: they are too many, which is found out before they are made, as that takes time.
        TypeError: something else than an Ethernet packet is among them.
    """
    several: list[Any] = [made] if isinstance(made, scapy.Packet) else list(islice(made, _MOST + 1))
    if sum(_variants(scapy, packet) for packet in several) > _MOST:
        raise ValueError(f"more than {_MOST} packets")
    return [frame_of(scapy, packet) for packet in scapy.SetGen(several)]


def _variants(scapy: Any, packet: Any) -> int:
    """How many packets one stands for whose fields have several values: a product; 1 for what is no packet."""
    variants = 1
    while isinstance(packet, scapy.Packet) and not isinstance(packet, scapy.NoPayload):
        for name in packet.fields:
            if not packet.get_field(name).islist:
                variants *= sum(1 for _ in islice(scapy.SetGen(packet.getfieldval(name)), _MOST + 1))
        packet = packet.payload
    return variants
