"""Record one packet of so many, drawn at random, in a capture file, while all of them pass.

python examples/sampler.py sim:a,gen=60 sim:b,sink=a 100000 samples.pcap
"""

import sys
import threading
import time

import numpy as np

import ixy
from ixy import tables
from ixy.formats.writing import Writer


class Sampler(tables.Samples):
    one_of: int
    slots = tables.slots(1024, 2048)


@ixy.kernel
def sample(packet: ixy.Packet, sampler: Sampler) -> int:
    if ixy.random(sampler.one_of) == 0:
        tables.keep(sampler, packet, ixy.now())
    return ixy.FORWARD


def save(samples: tables.Reader, writer: Writer) -> None:
    """Write the samples that are there by now, with the time of day."""
    epoch = time.time_ns() - time.monotonic_ns()
    for each in samples.read():
        data = np.frombuffer(each.data, np.uint8)
        writer.write(np.array([epoch + each.time]), data, np.array([0]), np.array([data.size]))


def run(path: ixy.Path, end: float) -> None:
    while time.monotonic() < end:
        path.run(256)


def main(source: str, target: str, one_of: str, file: str) -> None:
    sampler, end = Sampler(), time.monotonic() + 1
    sampler.one_of = int(one_of)
    with ixy.open(source) as a, ixy.open(target) as b, Writer(file) as writer:
        path, samples = ixy.Path(a.rx[0], b.tx[0], sample, sampler), tables.Reader(sampler)
        runner = threading.Thread(target=run, args=(path, end))
        runner.start()
        while runner.is_alive():
            save(samples, writer)
            runner.join(0.01)
        save(samples, writer)
        print(f"{writer.packets} of {path.counts.received} packets, {samples.missed} more missed")


if __name__ == "__main__":
    main(*sys.argv[1:5])
