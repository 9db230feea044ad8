"""A capture file in which everything is recorded that a card sends."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ixy.formats.writing import Format, Writer, append, record_bytes
from ixy.jit import compiled
from ixy.sim.rack import OUTPUT_PART, OWN_WORDS, SLOT, Rack
from ixy.sim.wires.wire import Options, Port, Wire
from ixy.unsafe import date_ns, write_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECORDS_SIZE = 1 << 20  # bytes of records that are gathered before they are written

# Words of the output: the file; packets that are wholly in it; of the records in memory, how many and how many bytes
# there are, and how many bytes are in the file; whether writing failed; the interface of the file's format
FD, WRITTEN_PACKETS, PENDING, USED, WRITTEN, FAILED, INTERFACE = range(OWN_WORDS, OWN_WORDS + 7)

_SNAPLEN = 65535


@compiled
def emit(rack: Rack, card: int, start: int, length: int) -> int:
    """Append the frame to the card's records, and write them out when they fill their buffer."""
    wire = rack.outputs[card]
    base = card * SLOT + OUTPUT_PART
    buffer = rack.tape[base : base + RECORDS_SIZE]
    if wire[USED] + record_bytes(length) > RECORDS_SIZE:
        flush(wire, buffer)
    if wire[FAILED] == 0:
        form = Format(_SNAPLEN, 1, int(wire[INTERFACE]))
        wire[USED] = append(buffer, wire[USED], form, date_ns(), rack.tape, start, length)
        wire[PENDING] += 1
    return -1


@compiled
def flush(wire: NDArray[np.int64], records: NDArray[np.uint8]) -> None:
    """Write the card's records out; after an error no more is recorded, and what was not written stays."""
    while wire[FAILED] == 0 and wire[WRITTEN] < wire[USED]:
        written = write_file(wire[FD], records, wire[WRITTEN], wire[USED] - wire[WRITTEN])
        if written <= 0:
            wire[FAILED] = 1
        else:
            wire[WRITTEN] += written
    if wire[FAILED] == 0:
        wire[WRITTEN_PACKETS] += wire[PENDING]
        wire[PENDING] = wire[USED] = wire[WRITTEN] = 0


@dataclass(frozen=True)
class Record(Wire):
    """`sim:a,tx_pcap=out.pcap`; "-" is standard output."""

    path: str

    option = "tx_pcap"
    takes = True
    emit = staticmethod(emit)

    @property
    def writes(self) -> str:
        return self.path

    @classmethod
    def parse(cls, options: Options) -> Record:
        return cls(options.values[cls.option])

    @contextmanager
    def plugged(self, port: Port) -> Generator[None]:
        """Open the file; when the wire is pulled out, what was recorded is in it.

        Raises:
            CaptureError: it cannot be opened; or it is not all in it, and how much is.
        """
        with Writer(self.path, _SNAPLEN) as writer, port.output_memory(RECORDS_SIZE):
            port.output[FD], port.output[INTERFACE] = writer.fileno(), writer.format.interface
            writer.flush(_records(port), 0)  # nothing, which compiles what the end takes
            yield
            _finish(port, writer)


def _finish(port: Port, writer: Writer) -> None:
    """Write what the card had not written yet, and report an error that it met."""
    wire = port.output
    written, fd = int(wire[WRITTEN]), writer.fileno()
    if written and stat.S_ISREG(os.fstat(fd).st_mode):
        # The card met an error amid a write: take its part back, so that the whole is written again or reported.
        os.ftruncate(fd, os.lseek(fd, -written, os.SEEK_CUR))
    writer.packets += int(wire[WRITTEN_PACKETS])
    writer.flush(_records(port), int(wire[USED]))


def _records(port: Port) -> NDArray[np.uint8]:
    """The memory in which records are gathered."""
    return port.rack.tape[port.output_part :][:RECORDS_SIZE]
