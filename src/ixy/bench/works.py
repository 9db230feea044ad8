"""What a device of ours does while it is measured beside others: it receives, sends, or sends back what comes.

python -m ixy.bench.works ADDRESS WORK BATCH TALLY     until it is ended; how many packets it moved, stands in a file
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ixy.apps.echo import swap_addresses
from ixy.bench.tally import open_tally
from ixy.device import Device, open_device
from ixy.drivers.rings import enter, exit_from
from ixy.formats.frames import udp_frame
from ixy.jit import compiled
from ixy.packets.buffers import STRIDE
from ixy.packets.packets import Packets, new_packets
from ixy.packets.pool import Pools, give, pools, release, take, wait_for
from ixy.path import Path, run
from ixy.unsafe import copy

RECEIVE, TRANSMIT, FORWARD = "receive", "transmit", "forward"
FRAME_BYTES = 60
RING_SIZE = 2048  # of an interface of the kernel
_TURN = 64  # polls, after which the tally is written

Turn = Callable[[int], int]  # polls so many times; how many packets it moved


def receive_loop(device: Device, batch: int) -> Turn:
    """Receive, count, and give the buffers back."""
    ring = device.rx[0].ring
    kernel = ring.kernel

    @compiled
    def loop(state: Any, pools: Pools, packets: Packets, polls: int) -> int:
        received = 0
        enter(state, pools)
        for _ in range(polls):
            count = kernel(state, pools, packets, packets.ids.size)
            give(pools, packets, 0, count)
            received += count
        exit_from(state, pools)
        return received

    packets = new_packets(batch)
    return lambda polls: loop(ring.state, pools(), packets, polls)


def transmit_loop(device: Device, batch: int) -> Turn:
    """Take buffers, copy one prepared frame into each, send; what the ring does not take goes back."""
    ring = device.tx[0].ring
    kernel = ring.kernel
    pool = device.rx[0].pool.number

    @compiled
    def loop(state: Any, pools: Pools, packets: Packets, frame: Any, polls: int) -> int:
        memory = pools.bytes.reshape(-1)
        sent = 0
        wait_for(pools.words, pool)
        for _ in range(polls):
            count = take(pools, pool, packets, packets.ids.size)
            for i in range(count):
                copy(memory, int(packets.ids[i]) * STRIDE, frame, 0, frame.size)
            taken = kernel(state, pools, packets, 0, count)
            give(pools, packets, taken, count)
            sent += taken
        release(pools.words, pool)
        return sent

    packets = new_packets(batch)
    packets.lengths[:] = FRAME_BYTES
    frame = np.frombuffer(udp_frame(FRAME_BYTES), np.uint8).copy()
    return lambda polls: loop(ring.state, pools(), packets, frame, polls)


def forward_loop(device: Device, batch: int) -> Turn:
    """Receive, swap the addresses of each packet, send."""
    path = Path(device.rx[0], device.tx[0], swap_addresses, batch=batch)
    return lambda polls: run([path], polls)


LOOPS = {RECEIVE: receive_loop, TRANSMIT: transmit_loop, FORWARD: forward_loop}


def main(address: str, work: str, batch: str, path: str) -> None:
    """Do one of `LOOPS` until this process is ended."""
    with open_device(address, ring_size=RING_SIZE, pool_size=2 * RING_SIZE) as device:
        turn = LOOPS[work](device, int(batch))
        turn(0)  # compiles the loop
        tally = open_tally(path)
        while True:
            tally[0] += turn(_TURN)


if __name__ == "__main__":
    main(*sys.argv[1:])
