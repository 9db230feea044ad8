"""A user's function between two queues, compiled and interpreted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import accounted, arrive, batch_of, depart, frame, number_of, open_card, receive_all

import ixy
from ixy import path as paths
from ixy.errors import ConfigurationError, Error
from ixy.jit import INTERPRETED
from ixy.packets.mempool import Mempool
from ixy.path import PathCounts, touch, unchanged
from ixy.sim.machine import Machine

RING, POOL = 64, 256


@ixy.kernel
def odd_only(packet: Any) -> int:
    """Forward packets whose number, in byte 21, is odd."""
    return ixy.FORWARD if packet[21] % 2 == 1 else ixy.DROP


@ixy.kernel
def nothing(_packet: Any) -> int:
    return ixy.DROP


@ixy.kernel
def beyond(packet: Any) -> int:
    """Go outside packet 5, after having marked it."""
    packet[0] = 0xEE
    if packet[21] == 5:
        packet[len(packet)] = 1
    return ixy.FORWARD


@ixy.kernel
def swap_addresses(packet: Any) -> int:
    for i in range(6):
        packet[i], packet[6 + i] = packet[6 + i], packet[i]
    return ixy.FORWARD


def two_cards(machine: Machine) -> tuple[ixy.Device, ixy.Device]:
    return (
        open_card(machine, ring_size=RING, pool_size=POOL),
        open_card(machine, "sim:b", ring_size=RING, pool_size=POOL),
    )


def test_unchanged_and_touch(machine: Machine) -> None:
    """Forty frames: as they were, and with byte 48 raised by one, 255 becoming 0."""
    a, b = two_cards(machine)
    with a, b:
        for function, step in ((unchanged, 0), (touch, 1)):
            for number in range(40):
                arrive(machine, frame(number))
            arrive(machine, frame(40)[:48] + b"\xff" + frame(40)[49:])
            path = ixy.Path(a.rx[0], b.tx[0], function)
            assert path.run(4) == 41
            left = depart(machine, name="b")
            for number, data in enumerate(left[:40]):
                expected = bytearray(frame(number))
                expected[48] = (expected[48] + step) % 256
                assert data == bytes(expected)
            assert left[40][48] == (255 + step) % 256
            assert path.counts == PathCounts(received=41, forwarded=41, dropped=0)


def test_verdicts(machine: Machine) -> None:
    """Half of the packets dropped, the others forwarded in their order; then all dropped; every buffer is back."""
    a, b = two_cards(machine)
    with a, b:
        for number in range(50):
            arrive(machine, frame(number))
        path = ixy.Path(a.rx[0], b.tx[0], odd_only)
        path.run(10)
        assert [number_of(data) for data in depart(machine, name="b")] == list(range(1, 50, 2))
        assert path.counts == PathCounts(50, 25, 25)
        for number in range(50):
            arrive(machine, frame(number))
        drop = ixy.Path(a.rx[0], b.tx[0], nothing)
        assert drop.run(10) == 50
        assert drop.counts == PathCounts(50, 0, 50)
        assert a.rx[0].pool.available + RING + b.tx[0].in_flight == POOL


def test_verdicts_of_any_integer(machine: Machine) -> None:
    """Zero drops; whatever else a function returns forwards."""

    @ixy.kernel
    def first_byte(packet: Any) -> int:
        return packet[0]

    a, b = two_cards(machine)
    with a, b:
        for value in (0, 1, 2, 255):
            arrive(machine, bytes([value]) + frame(value)[1:])
        ixy.Path(a.rx[0], b.tx[0], first_byte).run(1)
        assert [data[0] for data in depart(machine, name="b")] == [1, 2, 255]


@pytest.mark.parametrize("batch", [8, 32])
def test_full_transmit_ring(machine: Machine, batch: int) -> None:
    """While card b does not send, its ring takes 63 packets, and 63 wait in card a's: the other 74 are lost, and card a
    counts them. Once b has sent, those that waited follow, in order.
    """
    a, b = two_cards(machine)
    with a, b:
        path = ixy.Path(a.rx[0], b.tx[0], batch=batch)
        for start in range(0, 200, 50):
            for number in range(start, start + 50):
                arrive(machine, frame(number))
            path.run(20)
        assert path.counts == PathCounts(received=63, forwarded=63, dropped=0)
        assert a.stats().rx_dropped == 200 - 63 - 63
        assert a.rx[0].pool.available + RING + 63 == POOL
        sent = depart(machine, name="b")
        while path.run(20):
            sent += depart(machine, name="b")
        assert [number_of(data) for data in sent] == list(range(126))


def test_index_error_loses_no_buffer(machine: Machine) -> None:
    """The function goes outside a packet of the second batch: IndexError, those at hand dropped and counted, the rest
    goes on."""
    a, b = two_cards(machine)
    with a, b:
        path = ixy.Path(a.rx[0], b.tx[0], beyond, batch=16)
        for numbers in (range(6, 22), range(16), range(6, 10)):
            for number in numbers:
                arrive(machine, frame(number))
        with pytest.raises(IndexError):
            path.run(100)
        assert path.counts == PathCounts(received=32, forwarded=16, dropped=16)
        assert path.run(100) == 4
        left = [number_of(data) for data in depart(machine, name="b")]
        assert left == [*range(6, 22), *range(6, 10)]
        assert a.rx[0].pool.available + RING + b.tx[0].in_flight == POOL


def test_echo_on_one_device(machine: Machine) -> None:
    """Receive and transmit queue of the same card: addresses swapped, the rest as it was."""
    with open_card(machine, ring_size=RING, pool_size=POOL) as device:
        path = ixy.Path(device.rx[0], device.tx[0], swap_addresses)
        for number in range(20):
            arrive(machine, frame(number))
        path.run(2)
        for number, data in enumerate(depart(machine)):
            sent = frame(number)
            assert data == sent[6:12] + sent[:6] + sent[12:]
        assert path.counts.forwarded == 20
        assert accounted(device) == POOL


def test_two_paths_take_turns(machine: Machine) -> None:
    """Both directions between two cards in one loop: each direction's packets, and one sum."""
    a, b = two_cards(machine)
    with a, b:
        there, back = ixy.Path(a.rx[0], b.tx[0], touch), ixy.Path(b.rx[0], a.tx[0], odd_only)
        for number in range(30):
            arrive(machine, frame(number), "a")
            arrive(machine, frame(100 + number), "b")
        assert paths.run([there, back], 3) == 60
        assert len(depart(machine, name="b")) == 30
        assert [number_of(data) for data in depart(machine, name="a")] == list(range(101, 130, 2))
        assert (there.counts.forwarded, back.counts.forwarded, back.counts.dropped) == (30, 15, 15)


def test_error_in_one_of_two_paths(machine: Machine) -> None:
    """The second path's function fails: the first path's packets went out, and neither path has any left at hand."""
    a, b = two_cards(machine)
    with a, b:
        there, back = ixy.Path(a.rx[0], b.tx[0]), ixy.Path(b.rx[0], a.tx[0], beyond)
        for number in range(4, 8):
            arrive(machine, frame(number), "a")
            arrive(machine, frame(number), "b")
        with pytest.raises(IndexError):
            paths.run([there, back], 5)
        assert (there.counts, back.counts) == (PathCounts(4, 4, 0), PathCounts(4, 0, 4))
        assert b.rx[0].pool.available + RING == POOL


def test_runs_are_bounded(machine: Machine) -> None:
    """A run polls as often as it is told: ten packets in batches of two need five polls."""
    with open_card(machine, ring_size=RING, pool_size=POOL) as device:
        path = ixy.Path(device.rx[0], device.tx[0], batch=2)
        for number in range(10):
            arrive(machine, frame(number))
        assert [path.run(polls) for polls in (0, 1, 3, 5)] == [0, 2, 6, 2]


@pytest.mark.parametrize("spare", [32, 48, 64, 96])
def test_small_pool_whose_buffers_were_sent(machine: Machine, spare: int) -> None:
    """All spare buffers lie sent in a long transmit ring: the path fetches them and forwards on."""
    with (
        open_card(machine, ring_size=256, pool_size=256 + spare) as a,
        open_card(machine, "sim:b", ring_size=1024) as b,
    ):
        path = ixy.Path(a.rx[0], b.tx[0])
        left: list[int] = []
        for first in range(0, 1000, 100):
            for number in range(first, first + 100):
                arrive(machine, frame(number))
            for _ in range(20):
                path.run(5)
                left += [number_of(data) for data in depart(machine, name="b")]
        assert left == list(range(1000))


@pytest.mark.parametrize("batch", [0, -1, RING + 1])
def test_batch_sizes(machine: Machine, batch: int) -> None:
    """A batch of nothing, or above the smaller of both rings."""
    with open_card(machine, ring_size=RING, pool_size=POOL) as small, open_card(machine, "sim:b") as large:
        for rx, tx in ((small.rx[0], large.tx[0]), (large.rx[0], small.tx[0])):
            with pytest.raises(ConfigurationError, match=f"batch {batch}: 1 to {RING} are possible"):
                ixy.Path(rx, tx, batch=batch)


def test_closed_device(machine: Machine) -> None:
    """A path with an end that was closed does not run: its memory is gone."""
    a, b = two_cards(machine)
    path = ixy.Path(a.rx[0], b.tx[0])
    b.close()
    with pytest.raises(Error, match="sim:b is closed"):
        path.run()
    a.close()
    with pytest.raises(Error, match="sim:a is closed"):
        path.run()


# ---------------------------------------------------------------------------------------------------------------------
# Compiled and interpreted code do the same

SCRAMBLE = '''
import ixy

@ixy.kernel
def scramble(packet):
    """Arithmetic as users write it: overflow both ways, comparison of a sum, slices, loops, negative indices."""
    packet[12] += packet[13]
    packet[14] -= 200
    packet[15] = packet[16] * 3 + 7
    packet[16] ^= 0xFF
    packet[-1] = 300
    packet[-2] = -1
    if packet[17] + 1 == 256:
        packet[18] = 1
    if packet[19] - 1 < 0:
        packet[20] = 1
    total = 0
    for i in range(20, len(packet)):
        total += packet[i]
    packet[21] = total & 0xFF
    packet[22] = total >> 8
    part = packet[24:28]
    for i in range(4):
        part[i] = packet[28 + i] + i
    packet[23] = packet[23] // 3 + packet[23] % 3 + (packet[23] << 3)
    return ixy.DROP if total % 7 == 0 else ixy.FORWARD
'''
names: dict[str, Any] = {}
exec(SCRAMBLE, names)
scramble = names["scramble"]


def scrambled(packet: bytes) -> bytes | None:
    """What `scramble` is to do, on a list of plain integers; None: drop."""
    p = list(packet)
    p[12] = (p[12] + p[13]) % 256
    p[14] = (p[14] - 200) % 256
    p[15] = (p[16] * 3 + 7) % 256
    p[16] ^= 0xFF
    p[-1] = 44
    p[-2] = 255
    if p[17] == 255:
        p[18] = 1
    if p[19] == 0:
        p[20] = 1
    total = sum(p[20:])
    p[21] = total % 256
    p[22] = total // 256 % 256
    p[24:28] = [(p[28 + i] + i) % 256 for i in range(4)]
    p[23] = (p[23] // 3 + p[23] % 3 + p[23] * 8) % 256
    return None if total % 7 == 0 else bytes(p)


contents = st.lists(
    st.binary(min_size=60, max_size=200) | st.sampled_from([b"\xff" * 60, bytes(60)]), min_size=1, max_size=8
)


@given(contents)
def test_kernels_reckon_alike(packets: list[bytes]) -> None:
    """A function full of arithmetic on bytes gives what plain integers give; so compiled and interpreted agree."""
    machine = Machine(stepped=True)
    with open_card(machine, ring_size=RING, pool_size=RING * 2) as device:
        path = ixy.Path(device.rx[0], device.tx[0], scramble)
        for data in packets:
            arrive(machine, data)
        path.run(1)
        assert depart(machine) == [data for data in map(scrambled, packets) if data is not None]


OTHER_WAY = """
import json, sys
import numpy as np
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lab import arrive, depart, open_card
from ixy.sim.machine import Machine
import ixy
exec(compile(sys.argv[2], "scramble", "exec"))
machine = Machine(stepped=True)
with open_card(machine) as device:
    path = ixy.Path(device.rx[0], device.tx[0], scramble)
    for data in np.random.default_rng(1).integers(0, 256, (100, 100), np.uint8):
        arrive(machine, data.tobytes())
    path.run(10)
    print(json.dumps([data.hex() for data in depart(machine)]))
"""


def test_the_other_way_gives_the_same_bytes(machine: Machine) -> None:
    """A hundred random packets through a process that interprets if this one compiles, and compiles if it does not."""
    environment = os.environ | {"IXY_JIT": "1" if INTERPRETED else "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", OTHER_WAY, str(Path(__file__).parent), SCRAMBLE]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    with open_card(machine) as device:
        path = ixy.Path(device.rx[0], device.tx[0], scramble)
        for data in np.random.default_rng(1).integers(0, 256, (100, 100), np.uint8):
            arrive(machine, data.tobytes())
        path.run(10)
        assert [data.hex() for data in depart(machine)] == json.loads(run.stdout)


def test_batch_from_a_path_and_by_hand(machine: Machine) -> None:
    """A path and plain calls on the same queues share them: packets come in one order, buffers stay accounted for."""
    pool = Mempool(8)
    with open_card(machine, ring_size=RING, pool_size=POOL) as device:
        path = ixy.Path(device.rx[0], device.tx[0], batch=4)
        for number in range(10):
            arrive(machine, frame(number))
        path.run(1)
        device.tx[0].send(batch_of(pool, [frame(100)]))
        assert [number_of(data) for data in receive_all(device)] == [4, 5, 6, 7, 8, 9]
        assert [number_of(data) for data in depart(machine)] == [0, 1, 2, 3, 100]
    assert pool.available == 8
    pool.release()
