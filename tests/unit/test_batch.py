"""Batches own packets, and say so: the three ways to touch packets, and what is refused."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixy.errors import ConfigurationError, OwnershipError
from ixy.packets.batch import Batch, Packet, lent
from ixy.packets.mempool import Mempool
from ixy.packets.pool import give, pools

BUFFER = 2048


@contextmanager
def pool_of(capacity: int) -> Iterator[Mempool]:
    pool = Mempool(capacity)
    try:
        yield pool
    finally:
        if not pool.closed:
            pool.release()


@pytest.fixture
def pool() -> Iterator[Mempool]:
    with pool_of(64) as pool:
        yield pool


def filled(pool: Mempool, count: int, length: int = 60) -> Batch:
    """Packets whose first byte is their number and whose other bytes count up from it."""
    batch = pool.allocate(count, length)
    for number, packet in enumerate(batch):
        packet[:] = bytes((number + i) % 256 for i in range(length))
    return batch


def send_off(batch: Batch, count: int) -> None:
    """What a transmit ring's kernel does to a batch of which it takes the first packets, and frees them when sent."""
    packets, span = lent(batch)
    span[0] += count
    give(pools(), packets, span[0] - count, span[0])


# ---------------------------------------------------------------------------------------------------------------------
# Packets


def test_packet_is_a_sequence_of_bytes(pool: Mempool) -> None:
    """Length, single bytes from both ends, slices, iteration and conversion of a packet of 60 bytes."""
    with filled(pool, 3) as batch:
        packet = batch[1]
        expected = bytes(range(1, 61))
        assert len(packet) == 60
        assert (packet[0], packet[59], packet[-1], packet[-60]) == (1, 60, 60, 1)
        assert (packet[10:14], packet[50:], packet[-4:-2], packet[20:10]) == (
            expected[10:14],
            expected[50:],
            expected[-4:-2],
            b"",
        )
        assert (bytes(packet), list(packet)) == (expected, list(expected))
        assert repr(packet) == "<Packet of 60 bytes>"


def test_packet_is_written(pool: Mempool) -> None:
    """A byte, the last byte, a slice; the batch's other packets stay as they were."""
    with filled(pool, 3) as batch:
        packet = batch[1]
        packet[0], packet[-1] = 0xAA, 0xBB
        packet[2:5] = b"xyz"
        assert bytes(packet) == b"\xaa\x02xyz" + bytes(range(6, 60)) + b"\xbb"
        assert bytes(batch[0]) == bytes(range(60))
        assert bytes(batch[2]) == bytes(range(2, 62))


@given(st.integers(0, 255), st.integers(-(10**6), 10**6))
def test_assigned_integers_are_taken_modulo_256(start: int, change: int) -> None:
    """Adding to a byte wraps around, also below zero, as it does in compiled code."""
    with pool_of(1) as pool, pool.allocate(1) as batch:
        batch[0][48] = start
        batch[0][48] += change
        assert batch[0][48] == (start + change) % 256


@pytest.mark.parametrize("index", [60, -61, 2047, 10**9])
def test_byte_outside_a_packet(pool: Mempool, index: int) -> None:
    """Reading and writing raise, although the buffer is larger than the packet."""
    with filled(pool, 1) as batch:
        with pytest.raises(IndexError, match=f"byte {index} of a packet of 60 bytes"):
            batch[0][index]
        with pytest.raises(IndexError, match=f"byte {index} of a packet of 60 bytes"):
            batch[0][index] = 1


def test_slices_neither_stretch_nor_skip(pool: Mempool) -> None:
    """A slice takes exactly as many bytes as it has, and goes in steps of 1."""
    with filled(pool, 1) as batch:
        for value in (b"12", b"1234"):
            with pytest.raises(ValueError, match="structure"):
                batch[0][0:3] = value
        with pytest.raises(IndexError, match="steps of 1"):
            batch[0][::2]
        with pytest.raises(IndexError, match="steps of 1"):
            batch[0][::-1] = bytes(60)
        assert bytes(batch[0]) == bytes(range(60))


def test_resize(pool: Mempool) -> None:
    """Shorter, then as long as the buffer: the bytes within stay, and the batch knows; 0 and 2049 are refused."""
    with filled(pool, 2) as batch:
        packet = batch[1]
        packet.resize(20)
        assert (len(packet), bytes(packet)) == (20, bytes(range(1, 21)))
        packet.resize(BUFFER)
        packet[BUFFER - 1] = 9
        assert batch.lengths.tolist() == [60, BUFFER]
        for length in (0, -1, BUFFER + 1):
            with pytest.raises(ConfigurationError, match=f"length {length}: 1 to {BUFFER} are possible"):
                packet.resize(length)
        assert len(packet) == BUFFER


def test_packets_of_a_batch_by_index(pool: Mempool) -> None:
    """From both ends; beyond them IndexError, which also ends a loop."""
    with filled(pool, 3) as batch:
        assert [packet[0] for packet in batch] == [batch[i][0] for i in range(3)] == [0, 1, 2]
        assert [batch[i][0] for i in (-1, -2, -3)] == [2, 1, 0]
        for index in (3, -4):
            with pytest.raises(IndexError, match=f"packet {index} of a batch of 3"):
                batch[index]


# ---------------------------------------------------------------------------------------------------------------------
# Ownership


def uses(batch: Batch) -> dict[str, Callable[[], object]]:
    """All that one can do with a batch that owns packets."""
    view = batch.bytes
    return {
        "iterate": lambda: list(batch),
        "index": lambda: batch[0],
        "lengths": lambda: batch.lengths,
        "bytes": lambda: batch.bytes,
        "read by a view": lambda: view[:, 0],
        "write by a view": lambda: view.__setitem__((slice(None), 0), 1),
        "copy a view": lambda: np.asarray(view),
        "send": lambda: lent(batch),
    }


def uses_of_packet(packet: Packet) -> dict[str, Callable[[], object]]:
    return {
        "read": lambda: packet[0],
        "slice": lambda: packet[:4],
        "write": lambda: packet.__setitem__(0, 1),
        "write a slice": lambda: packet.__setitem__(slice(0, 1), b"1"),
        "iterate": lambda: list(packet),
        "convert": lambda: bytes(packet),
        "resize": lambda: packet.resize(60),
    }


ENDINGS: dict[str, Callable[[Batch, Mempool], object]] = {
    "freed": lambda batch, _: batch.free(),
    "sent": lambda batch, _: send_off(batch, len(batch)),
    "left": lambda batch, _: batch.__exit__(),
    "pool closed": lambda _, pool: pool.release(),
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_gone_cannot_be_touched(pool: Mempool, ending: str, count: int) -> None:
    """A batch that was freed, sent or left, or whose pool closed: every use of it and of its packets raises."""
    batch = filled(pool, count)
    packet = batch[count // 2]
    waiting = {**uses(batch), **uses_of_packet(packet)}
    for use in waiting.values():
        use()
    ENDINGS[ending](batch, pool)
    for name, use in waiting.items():
        with pytest.raises(OwnershipError):
            pytest.fail(f"{name} worked: {use()}")


def test_partly_sent_batch_keeps_the_rest(pool: Mempool) -> None:
    """Two of five sent: their packets are gone, the other three can be touched, and the first is now the third."""
    batch = filled(pool, 5)
    packets = list(batch)
    send_off(batch, 2)
    assert len(batch) == 3
    assert [packet[0] for packet in batch] == [2, 3, 4]
    assert (batch[0][0], batch[-1][0], packets[2][0]) == (2, 4, 2)
    assert batch.bytes[:, 0].tolist() == [2, 3, 4]
    assert batch.lengths.shape == (3,)
    for packet in packets[:2]:
        with pytest.raises(OwnershipError, match="this packet was sent or freed"):
            packet[0]
    with pytest.raises(IndexError):
        batch[3]
    batch.free()
    assert pool.available == 64  # two from who sent them, three from the batch


def test_scope_gives_back(pool: Mempool) -> None:
    """Leaving a with block, also by an exception, dropping the last reference, freeing twice: each gives back once."""
    with pool.allocate(10):
        assert pool.available == 54
    assert pool.available == 64
    with pytest.raises(ZeroDivisionError), pool.allocate(10):
        raise ZeroDivisionError
    assert pool.available == 64
    batch = pool.allocate(10)
    del batch
    gc.collect()
    assert pool.available == 64
    batch = pool.allocate(10)
    batch.free()
    batch.free()
    assert pool.available == 64


def test_packet_keeps_its_batch_alive(pool: Mempool) -> None:
    """A packet that is kept holds all of its batch's buffers, and stays readable."""
    packet = filled(pool, 4)[3]
    gc.collect()
    assert pool.available == 60
    assert packet[0] == 3
    del packet
    gc.collect()
    assert pool.available == 64


def test_batch_outlives_its_pool(pool: Mempool) -> None:
    """Letting a batch of a closed pool go does nothing, and a packet of it does not fault."""
    batch = filled(pool, 4)
    packet = batch[0]
    pool.release()
    with pytest.raises(OwnershipError, match="device closed"):
        packet[0]
    batch.free()
    del batch


def test_empty_batch(pool: Mempool) -> None:
    """A batch of nothing, as an idle queue gives: it can be looked at, iterated, sent and freed."""
    everything = pool.allocate(64)
    with pool.allocate(1) as batch:
        assert (len(batch), list(batch), batch.lengths.tolist()) == (0, [], [])
        assert batch.bytes[:, 48].shape == (0,)
        batch.bytes[:, 48] += 1
        lent(batch)
        assert repr(batch) == "<Batch of 0 packets>"
    everything.free()
    assert repr(everything) == "<Batch of 0 packets, moved>"


# ---------------------------------------------------------------------------------------------------------------------
# All packets at once

ROWS = 5


def parts(size: int) -> st.SearchStrategy[Any]:
    """Indices, slices and lists of indices of an axis."""
    index = st.integers(-size, size - 1)
    return st.one_of(index, index.map(np.int64), st.slices(size), st.lists(index, min_size=1, max_size=4))


def keys() -> st.SearchStrategy[Any]:
    """Keys for an array of five rows, as far as rows and columns are not both lists of different lengths."""
    pairs = st.tuples(parts(ROWS), parts(BUFFER))
    alike = pairs.filter(lambda pair: not (isinstance(pair[0], list) and isinstance(pair[1], list)))
    return st.one_of(parts(ROWS), alike)


@given(keys(), st.integers(0, 255), st.integers(0, 2**32))
def test_bytes_behave_as_an_array(key: Any, value: int, seed: int) -> None:
    """Reading and writing by any index and slice does to the packets what it does to a plain array of their bytes."""
    with pool_of(ROWS + 3) as pool, pool.allocate(ROWS + 2) as batch:
        send_off(batch, 2)  # rows do not start with the first buffer
        model = np.random.default_rng(seed).integers(0, 256, (ROWS, BUFFER), np.uint8)
        batch.bytes[:, :] = model
        assert np.array_equal(batch.bytes[key], model[key])
        batch.bytes[key] = value
        model[key] = value
        assert np.array_equal(batch.bytes[:], model)
        batch.bytes[key] ^= 0x55
        model[key] ^= 0x55
        assert np.array_equal(np.asarray(batch.bytes), model)


def test_bytes_by_masks_and_shape(pool: Mempool) -> None:
    """Rows and columns chosen by conditions, as one writes a filter; the shape; and all that is read is a copy."""
    with filled(pool, 6) as batch:
        first = batch.bytes[:, 0]
        batch.bytes[first >= 4, 48] = 7
        assert [packet[48] == 7 for packet in batch] == [False] * 4 + [True] * 2
        assert batch.bytes.shape == (6, BUFFER)
        assert batch.bytes[1, batch.bytes[0] < 3][:3].tolist() == [1, 2, 3]
        assert batch.bytes[1:3, [0, 1]].tolist() == [[1, 2], [2, 3]]
        with pytest.raises(ValueError, match="is a copy"):
            np.array(batch.bytes, copy=False)
        for copied in (np.array(batch.bytes), batch.bytes[5], batch.bytes[5, :8], batch.bytes[5:], batch.bytes[[5], 0]):
            copied[...] = 0
            assert batch[5][0] == 5


@pytest.mark.parametrize("key", [(0, BUFFER), (slice(None), -BUFFER - 1), (0, [0, BUFFER]), ROWS, (-ROWS - 1, 0)])
def test_bytes_outside(pool: Mempool, key: Any) -> None:
    """A row or a column that the batch does not have: IndexError for reading and for writing."""
    with filled(pool, ROWS) as batch:
        with pytest.raises(IndexError):
            batch.bytes[key]
        with pytest.raises(IndexError):
            batch.bytes[key] = 0
