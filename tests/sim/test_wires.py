"""What is plugged into a card's port: cables, capture files, generators with sinks, TAP devices."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dpkt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import BROADCAST, batch_of, frame, number_of, open_card, read_pcap, receive_all, write_pcap

from ixy import errors
from ixy.apps.templates import from_pcap
from ixy.device import Device
from ixy.formats.frames import udp_frame
from ixy.packets.mempool import Mempool
from ixy.sim import rack
from ixy.sim.machine import Machine, SinkReport
from ixy.sim.spec import check_files
from ixy.sim.wires import sink
from ixy.sim.wires.record import Record
from ixy.sim.wires.replay import Replay
from ixy.tables import order


def settle(machine: Machine) -> None:
    """Step until no card has anything to do."""
    while machine.step():
        pass


@pytest.fixture
def pool() -> Iterator[Mempool]:
    pool = Mempool(1024)
    yield pool
    pool.release()


# ---------------------------------------------------------------------------------------------------------------------
# Cables


@pytest.mark.parametrize(
    ("first", "second"),
    [("sim:a,cable=b", "sim:b"), ("sim:a", "sim:b,cable=a"), ("sim:a,cable=b", "sim:b,cable=a")],
    ids=["named by the first", "named by the second", "named by both"],
)
def test_cable_carries_both_ways(machine: Machine, pool: Mempool, first: str, second: str) -> None:
    """Whichever end names it: frames of a arrive at b and frames of b at a, whole and in order."""
    with open_card(machine, first) as a, open_card(machine, second) as b:
        assert a.link.up
        assert b.link.up
        frames = [frame(number, 60 + 20 * number) for number in range(40)]
        assert a.tx[0].send(batch_of(pool, frames[:20])) == 20
        assert b.tx[0].send(batch_of(pool, frames[20:])) == 20
        settle(machine)
        assert receive_all(b) == frames[:20]
        assert receive_all(a) == frames[20:]


def test_cable_survives_one_end(machine: Machine, pool: Mempool) -> None:
    """While one end is closed, what the other sends is lost; opened again, it receives, without naming the cable."""
    with open_card(machine, "sim:a,cable=b") as a:
        open_card(machine, "sim:b").close()
        a.tx[0].send(batch_of(pool, [frame(1)]))
        settle(machine)
        with open_card(machine, "sim:b") as b:
            a.tx[0].send(batch_of(pool, [frame(2)]))
            b.tx[0].send(batch_of(pool, [frame(3)]))
            settle(machine)
            assert [number_of(data) for data in receive_all(b)] == [2]
            assert [number_of(data) for data in receive_all(a)] == [3]


def test_cable_is_gone_with_both_ends(machine: Machine, tmp_path: Path) -> None:
    """When both cards are closed, their names are free for other wires."""
    open_card(machine, "sim:a,cable=b").close()
    assert not machine.cards
    open_card(machine, f"sim:b,tx_pcap={tmp_path / 'out.pcap'}").close()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("sim:a", "sim:b,cable=b", "sim:b: a cable to itself"),
        ("sim:a,cable=b", "sim:c,cable=a", "sim:a: something else is plugged in already"),
        ("sim:a,cable=b", "sim:b,cable=c", "sim:b: something else is plugged in already"),
        ("sim:a,gen=60", "sim:b,cable=a", "sim:a: something else is plugged in already"),
        ("sim:a,cable=b", "sim:b,gen=60", "sim:b: a cable is plugged in already: open it as sim:b"),
    ],
)
def test_plugs_that_do_not_fit(machine: Machine, first: str, second: str, message: str) -> None:
    """A port takes one plug; the card that it was for stays free, and the first card works on."""
    with open_card(machine, first) as device:
        with pytest.raises(errors.AddressError, match=message):
            open_card(machine, second)
        assert set(machine.cards) <= {"a", "b"}
        assert not device.closed
        machine.step()
    assert not machine.cards


# ---------------------------------------------------------------------------------------------------------------------
# Capture files


def test_file_is_replayed_and_recorded(machine: Machine, tmp_path: Path) -> None:
    """A file of 300 frames into card a, what arrives out of card b: the recorded file holds them all, in order."""
    frames = [frame(number, 60 + number * 4) for number in range(300)]
    source, target = write_pcap(tmp_path / "in.pcap", frames), tmp_path / "out.pcap"
    with open_card(machine, f"sim:a,rx_pcap={source}") as a, open_card(machine, f"sim:b,tx_pcap={target}") as b:
        while True:
            machine.step()
            batch = a.rx[0].receive()
            if not len(batch):
                break
            b.tx[0].send(batch)
            assert len(batch) == 0
        settle(machine)
    assert read_pcap(target) == frames


def test_short_frames_are_padded(machine: Machine, tmp_path: Path) -> None:
    """Frames below 60 bytes, as a kernel's capture of what it sends has them, arrive padded with zeros."""
    source = write_pcap(tmp_path / "in.pcap", [frame(1, 42), frame(2, 59), frame(3, 60)])
    with open_card(machine, f"sim:a,rx_pcap={source}") as device:
        settle(machine)
        assert receive_all(device) == [frame(1, 42).ljust(60, b"\0"), frame(2, 59) + b"\0", frame(3, 60)]


def test_replay_waits_for_the_card(machine: Machine, tmp_path: Path) -> None:
    """A fast replay obeys the card as a partner obeys pause frames: 500 frames through a ring of 64, none dropped."""
    source = write_pcap(tmp_path / "in.pcap", [frame(number) for number in range(500)])
    with open_card(machine, f"sim:a,rx_pcap={source}", ring_size=64, pool_size=128) as device:
        settle(machine)
        assert device.stats().rx_packets == 63
        found = []
        while data := receive_all(device):
            found += data
            settle(machine)
        assert [number_of(data) for data in found] == list(range(500))
        assert device.stats().rx_dropped == 0


def test_original_timing_delivers_nothing_early(machine: Machine, tmp_path: Path) -> None:
    """Ten frames at once, ten an hour later: however often the card is stepped, the second ten do not come."""
    times = [0.0] * 10 + [3600.0] * 10
    path = tmp_path / "in.pcap"
    with path.open("wb") as file:
        writer = dpkt.pcap.Writer(file, nano=True)
        for number, time in enumerate(times):
            writer.writepkt(frame(number), 1_700_000_000 + time)
    with open_card(machine, f"sim:a,rx_pcap={path},timing=original") as device:
        for _ in range(100):
            machine.step()
        assert [number_of(data) for data in receive_all(device)] == list(range(10))
        # As if the clock had started an hour earlier
        machine.rack.inputs[machine.cards["a"].index, rack.STARTED] -= 3600 * 10**9
        machine.step()
        assert [number_of(data) for data in receive_all(device)] == list(range(10, 20))


def test_replay_that_was_held_up_catches_up_within_a_bound(machine: Machine, tmp_path: Path) -> None:
    """A frame each 10 ms. After 3 s in which nothing moved 64 late frames come at once, and the gaps are kept again."""
    source = write_pcap(tmp_path / "in.pcap", [frame(number) for number in range(1000)], gap=0.01)
    with open_card(machine, f"sim:a,rx_pcap={source},timing=original") as device:
        machine.step()
        assert len(receive_all(device)) == 1
        machine.rack.inputs[machine.cards["a"].index, rack.STARTED] -= 3 * 10**9
        begun = time.monotonic()
        machine.step(4)
        number = len(receive_all(device))
        assert 64 <= number <= 66 + (time.monotonic() - begun) * 100
        machine.rack.inputs[machine.cards["a"].index, rack.STARTED] -= (
            50 * 10**6
        )  # five frames' time: all are caught up
        machine.step(4)
        assert len(receive_all(device)) >= 5


def test_recording_is_written_when_the_buffer_fills(machine: Machine, pool: Mempool, tmp_path: Path) -> None:
    """More than a buffer of 1 MiB: most is in the file before the card is closed, all of it after; nothing is lost."""
    target = tmp_path / "out.pcap"
    frames = [frame(number, 1514) for number in range(900)]
    with open_card(machine, f"sim:a,tx_pcap={target}") as device:
        for start in range(0, 900, 300):
            assert device.tx[0].send(batch_of(pool, frames[start : start + 300])) == 300
            settle(machine)
        assert target.stat().st_size > 1 << 19
    assert read_pcap(target) == frames


def test_full_disk(machine: Machine) -> None:
    """The device /dev/full takes nothing, not even a file's header: the card cannot be opened, and is free."""
    with pytest.raises(errors.CaptureError, match="/dev/full: disk full"):
        open_card(machine, "sim:a,tx_pcap=/dev/full")
    assert not machine.cards


def test_reader_of_a_pipe_that_goes_away(machine: Machine, pool: Mempool, tmp_path: Path) -> None:
    """A capture into a pipe whose reader leaves: closing the card says so, and returns its memory all the same."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    device = open_card(machine, f"sim:a,tx_pcap={path}")
    os.close(reader)
    device.tx[0].send(batch_of(pool, [frame(1)]))
    settle(machine)
    with pytest.raises(errors.CaptureError, match="packets written whole: 0"):
        device.close()
    assert device.closed
    assert not machine.cards
    open_card(machine).close()


def other_names(path: Path) -> list[str]:
    """Names of one file: its own, relative, through a symbolic and a hard link, and that of a file descriptor."""
    (path.parent / "symbolic").symlink_to(path)
    (path.parent / "hard").hardlink_to(path)
    return [str(path), os.path.relpath(path), str(path.parent / "symbolic"), str(path.parent / "hard")]


def test_file_is_not_replayed_and_recorded_at_once(machine: Machine, tmp_path: Path) -> None:
    """However it is named, and on whichever card, the file that is replayed is not written, and stays as it was."""
    path = tmp_path / "in.pcap"
    write_pcap(path, [frame(number) for number in range(5)])
    before = path.read_bytes()
    with path.open() as file:
        for name in [*other_names(path), f"/proc/self/fd/{file.fileno()}"]:
            with pytest.raises(errors.CaptureError, match=f"{name}: is both read and written"):
                open_card(machine, f"sim:a,rx_pcap={path},tx_pcap={name}")
            with pytest.raises(errors.CaptureError, match=f"{name}: is both read and written"):
                check_files([Record(name), Replay(str(path))])
            with (
                open_card(machine, f"sim:a,rx_pcap={path}"),
                pytest.raises(errors.CaptureError, match=f"{name}: is both read and written"),
            ):
                open_card(Machine(stepped=True), f"sim:a,tx_pcap={name}")
            assert path.read_bytes() == before
    open_card(machine, f"sim:a,tx_pcap={path}").close()  # nobody reads it now


def test_file_is_not_recorded_twice(machine: Machine, tmp_path: Path) -> None:
    """Two cards do not write one file; /dev/null takes any number."""
    path = tmp_path / "out.pcap"
    with open_card(machine, f"sim:a,tx_pcap={path}"):
        for name in other_names(path):
            with pytest.raises(errors.CaptureError, match="is written twice"):
                open_card(machine, f"sim:b,tx_pcap={name}")
            with pytest.raises(errors.CaptureError, match="is both read and written"):
                open_card(machine, f"sim:b,rx_pcap={name}")
    with open_card(machine, "sim:a,tx_pcap=/dev/null"), open_card(machine, "sim:b,tx_pcap=/dev/null"):
        pass


def test_templates_are_not_recorded_over(machine: Machine, tmp_path: Path) -> None:
    """What a generator sends was read from the file: as long as it is there, the file is not written."""
    path = tmp_path / "in.pcap"
    write_pcap(path, [frame(1)])
    before = path.read_bytes()
    templates = from_pcap(str(path))
    with pytest.raises(errors.CaptureError, match=r"in\.pcap: in use"):
        open_card(machine, f"sim:a,tx_pcap={path}")
    assert path.read_bytes() == before
    del templates
    open_card(machine, f"sim:a,tx_pcap={path}").close()


def test_cut_packets_are_told(machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file with two of three packets cut: replayed, or taken for templates, it is named with their number."""
    path = tmp_path / "short.pcap"
    records = [struct.pack("<IIII", 0, 0, 96, original) + bytes(96) for original in (1514, 96, 97)]
    path.write_bytes(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 96, 1) + b"".join(records))
    open_card(machine, f"sim:a,rx_pcap={path}").close()
    from_pcap(str(path))
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        f"{path}: packets that were cut when captured, and are replayed so: 2",
        f"{path}: packets that were cut when captured, and are sent so: 2",
    ]


@pytest.mark.parametrize("option", ["rx_pcap", "tx_pcap"])
def test_pipe_without_a_peer(machine: Machine, tmp_path: Path, option: str) -> None:
    """Opening waits for the other end; what a signal's handler raises ends it. Other cards go on, before and after."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    found: list[int] = []

    class EnoughError(BaseException):  # which no compiler takes for one of its own
        pass

    with open_card(machine, "sim:a,gen=60") as device:

        def alarm(*_: object) -> None:
            machine.step()
            found.append(len(receive_all(device)))
            raise EnoughError

        handler = signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)  # again, should the first one come while something is collected
        try:
            with pytest.raises(EnoughError):
                open_card(machine, f"sim:b,{option}={path}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
        machine.step()
        found.append(len(receive_all(device)))
        assert min(found) > 0
        open_card(machine, "sim:b").close()


LIMITED = """
import resource, sys
import ixy
from ixy.sim.machine import Machine
machine = Machine(stepped=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try: machine.plug_in("sim:a")
except ixy.Error as error: print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
machine.unplug(machine.plug_in("sim:a"))
"""


def test_limit_on_file_sizes() -> None:
    """The memory of a card is a file to the kernel: where the limit on files is lower, it is named."""
    done = subprocess.run([sys.executable, "-c", LIMITED], check=True, capture_output=True, text=True)
    assert re.fullmatch(
        r"MemoryUnavailable no \d+ bytes of memory for a simulated card: "
        r"files are limited to 100000 bytes; raise the limit \(ulimit -f\)\n",
        done.stdout,
    )


@pytest.mark.parametrize("option", ["rx_pcap", "tx_pcap"])
def test_file_that_cannot_be_opened(machine: Machine, tmp_path: Path, option: str) -> None:
    """A file in a directory that does not exist: one line with its name, and the card is free."""
    path = tmp_path / "missing" / "file.pcap"
    with pytest.raises(errors.CaptureError, match=f"{path}") as caught:
        open_card(machine, f"sim:a,{option}={path}")
    assert "\n" not in str(caught.value)
    open_card(machine).close()


def test_empty_file(machine: Machine, tmp_path: Path) -> None:
    """A capture without packets: a link, and nothing arrives."""
    source = write_pcap(tmp_path / "in.pcap", [])
    with open_card(machine, f"sim:a,rx_pcap={source}") as device:
        assert device.link.up
        assert machine.step(5) == 0
        assert receive_all(device) == []


# ---------------------------------------------------------------------------------------------------------------------
# Generators and sinks


def forward(machine: Machine, a: Device, b: Device) -> None:
    """What arrives at a leaves from b, until nothing moves."""
    while machine.step():
        with a.rx[0].receive() as batch:
            b.tx[0].send(batch)


@pytest.mark.parametrize("size", [60, 61, 1514])
def test_generated_frames(machine: Machine, size: int) -> None:
    """Frames are the usual UDP frame, but that the last four bytes count up from 0, big-endian."""
    with open_card(machine, f"sim:a,gen={size},count=300") as device:
        found = []
        while machine.step():
            found += receive_all(device)
        assert [int.from_bytes(data[-4:], "big") for data in found] == list(range(300))
        assert {data[:-4] for data in found} == {udp_frame(size)[:-4]}


def test_sink_is_content_with_what_is_right(machine: Machine) -> None:
    """All 1000 frames forwarded unchanged."""
    with open_card(machine, "sim:a,gen=60,count=1000") as a, open_card(machine, "sim:b,sink=a") as b:
        forward(machine, a, b)
        assert machine.sink_report("a", "b") == SinkReport(1000, 1000, lost=0, duplicated=0, reordered=0, wrong=0)


def test_card_that_generates_and_checks(machine: Machine) -> None:
    """One card with both: what it echoes is checked by its own sink."""
    with open_card(machine, "sim:a,gen=60,count=500") as device:
        forward(machine, device, device)
        assert machine.sink_report("a", "a") == SinkReport(500, 500, 0, 0, 0, 0)


@pytest.mark.parametrize(("sink", "wrong"), [("a", 0), ("b", 100)])
def test_swapped_addresses(machine: Machine, sink: str, wrong: int) -> None:
    """Frames whose addresses were swapped: right where they come back to their generator, wrong elsewhere."""
    touch = 48
    there = f"sim:a,gen=60,count=100,touch={touch}"
    with open_card(machine, there) as a, open_card(machine, f"sim:b,sink=a,touch={touch}") as b:
        while machine.step():
            with a.rx[0].receive() as batch:
                batch.bytes[:, :12] = np.roll(batch.bytes[:, :12], 6, axis=1)
                batch.bytes[:, touch] += 1
                {"a": a, "b": b}[sink].tx[0].send(batch)
        report = machine.sink_report("a", sink)
        assert (report.received, report.wrong) == (100, wrong)


def test_half_swapped_addresses(machine: Machine) -> None:
    """A frame whose destination became the source's address, while the source's did not change, is wrong."""
    with open_card(machine, "sim:a,gen=60,count=100") as a:
        while machine.step():
            with a.rx[0].receive() as batch:
                batch.bytes[:, :6] = batch.bytes[:, 6:12]
                a.tx[0].send(batch)
        assert machine.sink_report("a", "a").wrong == 100


@pytest.mark.parametrize(("touch", "wrong"), [(48, 0), (47, 100)])
def test_sink_expects_the_byte_that_it_was_told(machine: Machine, touch: int, wrong: int) -> None:
    """Byte 48 is raised by one on the way; a sink that expects so finds nothing wrong, one that expects else all."""
    with open_card(machine, "sim:a,gen=60,count=100") as a, open_card(machine, f"sim:b,sink=a,touch={touch}") as b:
        while machine.step():
            with a.rx[0].receive() as batch:
                batch.bytes[:, 48] += 1
                b.tx[0].send(batch)
        report = machine.sink_report("a", "b")
        assert (report.received, report.wrong) == (100, wrong)


@pytest.mark.parametrize("size", [60, 100])
def test_touched_byte_lies_before_the_number(machine: Machine, size: int) -> None:
    """The last four bytes of a frame are its number: the byte before is the last that may be touched on the way."""
    with open_card(machine, f"sim:a,gen={size},tx_pcap=/dev/null"):
        open_card(machine, f"sim:b,sink=a,touch={size - 5}").close()
        with pytest.raises(errors.AddressError, match=f"sim:b: touch {size - 4}: 12 to {size - 5} are possible"):
            open_card(machine, f"sim:b,sink=a,touch={size - 4}")
    with pytest.raises(errors.AddressError, match=f"sim:a: touch {size - 4}: 12 to {size - 5} are possible"):
        open_card(machine, f"sim:a,gen={size},touch={size - 4}")


def numbered(sequence: int, size: int = 60) -> bytes:
    return udp_frame(size)[:-4] + (sequence & 0xFFFFFFFF).to_bytes(4, "big")


def judge(sequence: list[bytes]) -> SinkReport:
    """What a sink says about these frames, sent by hand."""
    machine, pool = Machine(stepped=True), Mempool(256)
    with open_card(machine, "sim:a,gen=60,count=1"), open_card(machine, "sim:b,sink=a") as b:
        assert b.tx[0].send(batch_of(pool, sequence)) == len(sequence)
        settle(machine)
        report = machine.sink_report("a", "b")
    pool.release()
    return report


@pytest.mark.parametrize(
    ("frames", "lost", "duplicated", "reordered", "wrong"),
    [
        pytest.param([numbered(n) for n in (0, 1, 2, 3)], 0, 0, 0, 0, id="all there"),
        pytest.param([numbered(n) for n in (0, 1, 5, 6)], 3, 0, 0, 0, id="a gap of three"),
        pytest.param([numbered(n) for n in (4, 5)], 4, 0, 0, 0, id="the first four missing"),
        pytest.param([numbered(n) for n in (0, 2, 1, 3)], 0, 0, 1, 0, id="two exchanged"),
        pytest.param([numbered(n) for n in (0, 1, 1, 2)], 0, 1, 0, 0, id="one twice"),
        pytest.param([numbered(0), b"\xff" + numbered(1)[1:], numbered(2)], 0, 0, 0, 1, id="first byte"),
        pytest.param([numbered(0), b"\xff" + numbered(1)[1:], numbered(4)], 2, 0, 0, 1, id="and two missing"),
        pytest.param(
            [numbered(0), numbered(1)[:55] + b"\0" + numbered(1)[56:]], 0, 0, 0, 1, id="last byte before the number"
        ),
        pytest.param([numbered(0, 61), numbered(0)], 0, 0, 0, 1, id="a byte too long"),
        pytest.param([numbered(0), numbered(2**31), numbered(1)], 2**31 - 1, 0, 1, 0, id="behind the window"),
    ],
)
def test_sink_finds_faults(frames: list[bytes], lost: int, duplicated: int, reordered: int, wrong: int) -> None:
    """Frames that are missing, late, repeated or changed, counted each as what it is; what is wrong is not missing."""
    assert judge(frames)[1:] == (len(frames), lost, duplicated, reordered, wrong)


@given(st.lists(st.integers(0, 40), max_size=60))
def test_sink_counts_as_a_plain_loop_does(sequence: list[int]) -> None:
    """Any order of numbers: lost is what is missing below the highest, reordered what came first after a later one."""
    seen, reordered = set[int](), 0
    for number in sequence:
        reordered += number not in seen and number < max(seen, default=0)
        seen.add(number)
    if sequence:
        report = judge([numbered(number) for number in sequence])
        missing, copies = max(seen) + 1 - len(seen), len(sequence) - len(seen)
        assert (report.lost, report.duplicated, report.reordered, report.wrong) == (missing, copies, reordered, 0)


def test_sink_counts_beyond_what_a_number_holds(machine: Machine) -> None:
    """Behind the last of 2^32 numbers the first one comes again: neither a loss nor a step back."""
    with Mempool(64) as pool, open_card(machine, "sim:a,gen=60,count=1"), open_card(machine, "sim:b,sink=a") as b:
        machine.rack.outputs[machine.cards["b"].index, sink.ORDER + order.NEXT] = 2**32 - 1
        b.tx[0].send(batch_of(pool, [numbered(number) for number in (2**32 - 1, 0, 1)]))
        settle(machine)
        assert machine.sink_report("a", "b")[1:] == (3, 0, 0, 0, 0)


@pytest.mark.parametrize("source", ["nobody", "bare", "b"])
def test_sink_needs_a_generator(machine: Machine, source: str) -> None:
    """A card that is not there, one without generator, and the sink's own: refused, with what to do."""
    with open_card(machine, "sim:bare"):
        with pytest.raises(errors.AddressError, match=f"open sim:{source} with a generator"):
            open_card(machine, f"sim:b,sink={source}")
        assert set(machine.cards) == {"bare"}


def test_rate_beyond_what_the_card_takes(machine: Machine) -> None:
    """A generator at a given rate waits for nobody, once its first frame was taken: a billion frames a second fill the
    ring, the rest is dropped."""
    with open_card(machine, "sim:a,gen=60,rate=1e9,count=1000", ring_size=64, pool_size=128) as device:
        machine.step()
        assert len(receive_all(device)) == 1
        while machine.sink_report("a", "a").sent < 1000:
            machine.step()
        stats = device.stats()
        assert (stats.rx_packets, stats.rx_dropped) == (1000, 999 - 63)
        assert len(receive_all(device)) == 63


def test_generator_keeps_its_rate(machine: Machine) -> None:
    """One frame a second: the first comes at once; with the clock set back by ten seconds there are ten more."""
    with open_card(machine, "sim:a,gen=60,rate=1") as device:
        machine.step(50)
        first = len(receive_all(device))
        machine.rack.inputs[machine.cards["a"].index, rack.STARTED] -= 10 * 10**9
        machine.step(50)
        assert len(receive_all(device)) >= 10
        assert first >= 1


def test_generator_that_was_held_up_catches_up_within_a_bound(machine: Machine) -> None:
    """1000 frames a second, and an hour in which nothing moved: 64 frames come at once, not 3.6 million."""
    with open_card(machine, "sim:a,gen=60,rate=1000") as device:
        machine.step()
        receive_all(device)
        machine.rack.inputs[machine.cards["a"].index, rack.STARTED] -= 3600 * 10**9
        begun = time.monotonic()
        machine.step(100)
        number = len(receive_all(device))
        assert 64 <= number <= 66 + (time.monotonic() - begun) * 1000


# ---------------------------------------------------------------------------------------------------------------------
# TAP

needs_tap = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="needs root and /dev/net/tun"
)
TAP = f"ixytest{os.getpid() % 100_000}"


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace of this test's own."""
    name = f"ixy-wires-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def raw_socket(namespace: str, interface: str) -> socket.socket:
    """A packet socket on an interface of a namespace; the calling thread stays where it is."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    setns = ctypes.CDLL(None).setns
    try:
        assert setns(there, 0) == 0
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.bind((interface, 0))
        sock.settimeout(30)
    finally:
        assert setns(here, 0) == 0
        os.close(here)
        os.close(there)
    return sock


@needs_tap
def test_tap_carries_both_ways(machine: Machine, pool: Mempool, namespace: str) -> None:
    """The TAP device moves into a namespace of its own; a frame from a socket there arrives, a frame sent comes out."""
    with open_card(machine, f"sim:a,tap={TAP}") as device:
        assert device.link.up
        subprocess.run(["ip", "link", "set", TAP, "netns", namespace], check=True)
        subprocess.run(["ip", "-n", namespace, "link", "set", TAP, "up"], check=True)
        with raw_socket(namespace, TAP) as sock:
            short, long = frame(7, 42, BROADCAST), frame(8, 1514, BROADCAST)
            sock.send(short)
            sock.send(long)
            found: list[bytes] = []
            while not {short.ljust(60, b"\0"), long} <= set(found):  # the kernel sends of its own too
                machine.step()
                found += receive_all(device)
            outgoing = frame(9, 100, BROADCAST)
            device.tx[0].send(batch_of(pool, [outgoing]))
            settle(machine)
            while sock.recv(2048) != outgoing:
                pass


@needs_tap
def test_tap_that_is_taken(machine: Machine) -> None:
    """Two cards cannot share a TAP device; nor can a card take the place of an interface that is no TAP."""
    with open_card(machine, f"sim:a,tap={TAP}"), pytest.raises(errors.Error, match=f"tap={TAP}: .*busy"):
        open_card(machine, f"sim:b,tap={TAP}")
    with pytest.raises(errors.Error, match="tap=lo: cannot make a TAP device"):
        open_card(machine, "sim:b,tap=lo")
    assert not Path(f"/sys/class/net/{TAP}").exists()


@needs_tap
@pytest.mark.parametrize("noticed", ["reading", "writing"])
def test_tap_that_is_deleted(machine: Machine, pool: Mempool, caplog: pytest.LogCaptureFixture, noticed: str) -> None:
    """The interface goes under a running card: the link goes down, which is said once, and the card works on."""
    with open_card(machine, f"sim:a,tap={TAP}", ring_size=64) as device:
        assert device.link.up
        machine.step()
        subprocess.run(["ip", "link", "del", TAP], check=True)
        if noticed == "writing":
            device.tx[0].send(batch_of(pool, [frame(1)]))
        for _ in range(3):
            machine.step()
        assert not device.link.up
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert said == [f"sim:a: the TAP device {TAP} was deleted: the link is down"]
        device.tx[0].send(batch_of(pool, [frame(2)]))
        machine.step()
    open_card(machine, f"sim:a,tap={TAP}").close()


def test_tap_without_permission(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses: one line that says how to get it."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("ixy.sim.wires.tap.fcntl.ioctl", refuse)
    if not Path("/dev/net/tun").exists():
        monkeypatch.setattr("ixy.sim.wires.tap.os.open", refuse)
    with pytest.raises(errors.PermissionDenied, match=f"tap={TAP}: .*run as root"):
        open_card(machine, f"sim:a,tap={TAP}")
