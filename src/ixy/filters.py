"""Filters in tcpdump's language, for packets in Python, for kernels, and for loops that take a filter as data.

    dns = ixy.filter("udp port 53")

    if dns(packet): ...                  # a packet, or its bytes
    batch.ipv4.ttl[dns(batch)]           # a batch: an array, true where a packet matches

    @ixy.kernel
    def only_dns(packet: ixy.Packet) -> int:
        return ixy.FORWARD if dns(packet) else ixy.DROP

The language is that of pcap-filter(7), for frames of Ethernet. libpcap compiles an expression into a program
(`unsafe.libpcap`), and LLVM that into machine code (`unsafe.filters`). In a kernel it is inlined, and what the kernel
is part of is compiled anew for each filter; by `address` nothing is.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from ixy.jit import Direct, compiled
from ixy.packets.batch import Batch, Packet
from ixy.packets.buffers import STRIDE
from ixy.packets.pool import pools
from ixy.unsafe.filters import accepts, filter_address, intrinsic_of, matcher
from ixy.unsafe.libpcap import compile_expression

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Integers = NDArray[Any]

# A batch and a filter over it look at the same arrays.
# pyright: reportPrivateUsage=false


class Filter:
    """What packets are to be like, made by `ixy.filter`.

    Attributes:
        expression: as it was given.
        program: what libpcap has made of it.
    """

    def __init__(self, expression: str, *, optimize: bool = True) -> None:
        if not isinstance(cast(object, expression), str):
            raise TypeError(f"a filter is a text such as 'udp port 53', not {expression!r}")
        self.expression = expression
        self.program = compile_expression(expression, optimize=optimize)

    @overload
    def __call__(self, packet: Batch) -> NDArray[np.bool_]: ...
    @overload
    def __call__(self, packet: Packet | Bytes | bytes | bytearray | memoryview, length: int | None = None) -> bool: ...
    def __call__(self, packet: Any, length: int | None = None) -> Any:
        """Whether a packet matches, in Python or in a kernel; of a batch, which packets do.

        Of a packet in several parts it sees the first, and the length of all.

        Args:
            packet: one, or its bytes; or a batch, and then the value is an array of bool, shape (len(batch),).
            length: the bytes that the packet had on the wire, if some were cut off.

        Raises:
            OwnershipError: the packet was sent or freed.
            TypeError: it is none.
        """
        if isinstance(packet, Batch):
            return self._of_batch(packet)
        data = _octets(packet)
        if length is None:
            length = getattr(packet, "total", len(data))
        return self._match(data, len(data), length) != 0

    def matching(self, data: Bytes, starts: Integers, sizes: Integers, lengths: Integers) -> NDArray[np.bool_]:
        """Which packets match, of those that lie in an array, such as the ones of a capture file; shape (n,).

        Args:
            data: shape (any,), contiguous; packet i is `data[starts[i]:][:sizes[i]]`.
            starts, sizes: integers, shape (n,).
            lengths: the bytes that the packets had on the wire, likewise.

        Raises:
            ValueError: the arrays differ in length, or a packet lies outside `data`.
        """
        starts, sizes, lengths = (np.asarray(each, np.int64) for each in (starts, sizes, lengths))
        if not starts.shape == sizes.shape == lengths.shape:
            raise ValueError(f"{starts.size} starts, {sizes.size} sizes and {lengths.size} lengths")
        if np.any((starts < 0) | (sizes < 0) | (starts > data.size - sizes)):
            raise ValueError("a packet lies outside the data")
        return self._select(data, starts, sizes, lengths)

    @property
    def address(self) -> int:
        """Where its machine code lies, for kernels that call it by `unsafe.filters.accepts`. It never is 0, which all
        packets pass there, and stays where it is as long as the process lives."""
        return filter_address(self.program)

    @property
    def compilable(self) -> Any:
        """What stands for the filter in a kernel that is compiled."""
        return intrinsic_of(self.program)

    def __repr__(self) -> str:
        return f"ixy.filter({self.expression!r})"

    @cached_property
    def _match(self) -> Any:
        return matcher(self.program)

    def _of_batch(self, batch: Batch) -> NDArray[np.bool_]:
        batch._check()
        first, last = batch._limits
        starts = batch._packets.ids[first:last].astype(np.int64) * STRIDE
        sizes = batch._packets.lengths[first:last].astype(np.int64)
        return self._select(pools().bytes.reshape(-1), starts, sizes, batch.lengths.astype(np.int64))

    def _select(self, data: Bytes, starts: Integers, sizes: Integers, lengths: Integers) -> NDArray[np.bool_]:
        found = np.zeros(starts.size, np.bool_)
        _select_some(data.flags.writeable, self.address, data, starts, sizes, lengths, found)
        return found


def compile_filter(expression: str, *, optimize: bool = True) -> Filter:
    """A filter in tcpdump's language: `ixy.filter("tcp port 80 and not host 10.0.0.1")`.

    What comes behind `vlan`, `mpls` and `pppoes` is looked for behind that header, so they go first: "vlan 5 and host
    10.0.0.1" finds packets of a VLAN, and "host 10.0.0.1 and (vlan 5 or tcp)" none of them.

    Args:
        expression: see pcap-filter(7); all packets match the empty one. Names in it are resolved.
        optimize: let libpcap leave out what is not needed.

    Raises:
        FilterError: libpcap does not take it, in libpcap's words, or is not installed.
    """
    return Filter(expression, optimize=optimize)


def _octets(packet: Any) -> bytes:
    """The bytes of a packet."""
    if isinstance(packet, bytes):
        return packet
    if isinstance(packet, Packet):
        return packet[: packet._first_size()]
    if isinstance(packet, (bytearray, memoryview)) or hasattr(packet, "__bytes__"):
        return bytes(cast(Any, packet))
    octets = packet[:] if hasattr(packet, "write_back") else packet  # as an interpreted kernel sees it
    if isinstance(octets, np.ndarray) and cast("Bytes", octets).dtype == np.uint8:
        return octets.tobytes()
    raise TypeError(f"a filter takes a packet, its bytes or a batch, not {packet!r:.60}")


@Direct
@compiled
def _select_some(
    address: int, data: Bytes, starts: Integers, sizes: Integers, lengths: Integers, found: NDArray[np.bool_]
) -> None:
    """Note which packets pass."""
    for i in range(found.size):
        found[i] = accepts(address, data, starts[i], sizes[i], lengths[i])
