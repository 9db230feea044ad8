"""Cards by a virtual clock: what happens when follows from the program alone, to the nanosecond."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import dpkt
import numpy as np
import pytest
from lab import frame, write_pcap

import ixy
from ixy.errors import AddressError, ConfigurationError, OwnershipError, UnsupportedDevice
from ixy.sim.machine import Machine

START = 1_000_000_000  # ns: what the clock says at first
POLL = 1000  # ns that a poll takes
MINIMUM = 672  # tenths of a nanosecond that the shortest frame takes at 10 Gbit/s, with preamble and gap


@pytest.fixture
def opened() -> Iterator[Callable[..., ixy.Device]]:
    """Open cards, which are closed in the end."""
    with ExitStack() as stack:
        yield lambda address, **options: stack.enter_context(
            ixy.open(f"sim:{address},clock=virtual", link_timeout=0, **options)
        )


def stamps(path: Path) -> list[int]:
    """When frames were recorded, in ns after the start."""
    with path.open("rb") as file:
        return [int(moment * 10**9) - START for moment, _ in dpkt.pcap.Reader(file)]


def since() -> int:
    """The time that has passed, in ns."""
    return ixy.now() - START


# ---------------------------------------------------------------------------------------------------------------------
# Time passes by polls and by waiting, and by nothing else


def test_the_clock_of_an_open_card() -> None:
    """It starts when the first card is opened, each call takes a microsecond, and the next time it starts again."""
    for _ in range(2):
        with ixy.open("sim:virtual-a,clock=virtual", link_timeout=0) as device:
            assert since() == 0
            device.stats()
            device.rx[0].receive()
            assert since() == POLL
            with device.rx[0].pool.allocate(1, 60) as batch:
                device.tx[0].send(batch)
            assert since() == 2 * POLL
            assert not device.rx[0].wait(0)
            assert since() == 3 * POLL
    assert abs(ixy.now() - time.monotonic_ns()) < 10**9


def test_nothing_comes_for_a_day(opened) -> None:
    """Who waits on a quiet link is told at once that the time is up: so much later, and two polls."""
    device = opened("virtual-a,cable=virtual-b")
    opened("virtual-b")
    assert not len(device.rx[0].receive(timeout=86_400))
    assert since() == 86_400 * 10**9 + 2 * POLL


def test_a_path_on_a_quiet_link(opened) -> None:
    device = opened("virtual-a")
    path = ixy.Path(device.rx[0], device.tx[0])
    assert path.run(10**7) == 0
    assert since() == 10**7 * POLL
    path.run(4, wait=3600)  # which waits after the first stretch
    assert 3600 * 10**9 <= since() - 10**7 * POLL <= 3600 * 10**9 + 10 * POLL


def test_a_wait_without_end_and_without_hope(opened) -> None:
    device = opened("virtual-a,cable=virtual-b")
    opened("virtual-b")
    with pytest.raises(ixy.Error, match=r"sim:virtual-a rx\[0\]: nothing is under way, .* wait with a timeout"):
        device.rx[0].wait()


def test_a_wait_is_interrupted() -> None:
    """Ctrl-C ends a wait in which frames come and go without end, at another card."""
    program = (
        "import signal, ixy; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "a, b = ixy.open('sim:a,gen=60,rate=1e6,clock=virtual'), ixy.open('sim:b,clock=virtual', link_timeout=0);"
        "b.rx[0].receive(timeout=1e-4); print('waiting', flush=True); b.rx[0].wait()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"waiting\n"
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert errors.endswith(b"KeyboardInterrupt\n")


# ---------------------------------------------------------------------------------------------------------------------
# Frames have moments of their own


def test_frames_along_a_cable(opened) -> None:
    """Frame n has left when n + 1 of them have passed, 67.2 ns each, and arrives 50 µs later."""
    a, b = opened("virtual-a,cable=virtual-b,wire=10G,delay=50us"), opened("virtual-b")
    a.tx[0].send(a.rx[0].pool.allocate(20, 60))
    sent = [POLL + (n + 1) * MINIMUM // 10 for n in range(20)]
    first = b.rx[0].receive(timeout=1.0)
    assert since() == sent[0] + 50_000 + POLL
    assert len(first) == sum(moment <= sent[0] + POLL for moment in sent) == 15
    assert len(b.rx[0].receive()) == 5
    told = ixy.sim.impairments("virtual-a")
    assert (told["sent"] - START).tolist() == sent
    assert (told["arrives"] - told["sent"]).tolist() == [50_000] * 20


def next_poll(moment: int, unit: int = 1) -> int:
    """When a path next looks that polls all the time, in the unit of the moment: so many parts of a nanosecond."""
    return max(-(-moment // (POLL * unit)), 1) * POLL * unit


def test_a_file_is_replayed_and_recorded(opened, tmp_path: Path) -> None:
    """With the gaps that it recorded, along a path that polls each microsecond."""
    source = write_pcap(tmp_path / "in.pcap", [frame(n) for n in range(30)], gap=2**-9)
    a = opened(f"virtual-a,rx_pcap={source},timing=original")
    with ixy.open(f"sim:virtual-b,tx_pcap={tmp_path / 'out.pcap'},clock=virtual") as b:
        assert ixy.Path(a.rx[0], b.tx[0]).run(60_000) == 30
        assert since() == 60_000 * POLL
    assert stamps(tmp_path / "out.pcap") == [next_poll(n * 1_953_125) for n in range(30)]


def test_a_file_at_line_rate(opened, tmp_path: Path) -> None:
    """Frame after frame comes without a gap; each leaves once the path has seen it, and the wire is free."""
    source = write_pcap(tmp_path / "in.pcap", [frame(n) for n in range(100)])
    a = opened(f"virtual-a,rx_pcap={source},wire=10G")
    with ixy.open(f"sim:virtual-b,tx_pcap={tmp_path / 'out.pcap'},wire=10G,clock=virtual") as b:
        assert ixy.Path(a.rx[0], b.tx[0]).run(50) == 100
    begun, free = [], 0  # tenths of a nanosecond
    for n in range(100):
        begun.append(max(next_poll((n + 1) * MINIMUM, 10), free))
        free = begun[-1] + MINIMUM
    assert stamps(tmp_path / "out.pcap") == [moment // 10 for moment in begun]


class Log(ixy.Record):
    count: int
    numbers = ixy.array(64)
    times = ixy.array(64)
    stamps = ixy.array(64)


@ixy.kernel
def note(packet: ixy.Packet, log: Log) -> int:
    log.numbers[log.count] = packet.number
    log.times[log.count] = ixy.now()
    log.stamps[log.count] = packet.time
    log.count += 1
    return ixy.FORWARD


@ixy.kernel
def note_without_stamps(_packet: ixy.Packet, log: Log) -> int:
    log.times[log.count] = ixy.now()
    log.count += 1
    return ixy.FORWARD


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_what_a_kernel_sees(opened, batch: int) -> None:
    """Frame n of 300,000 a second comes after n × 3333⅓ ns and the 67.2 of its own; the next poll sees it."""
    a = opened("virtual-a,gen=60,rate=300000,wire=10G", metadata=("time",))
    b = opened("virtual-b,sink=virtual-a")
    log = Log()
    path = ixy.Path(a.rx[0], b.tx[0], note, log, batch=batch)
    assert path.run(100) == 30
    assert since() == 100 * POLL
    arrived = [-(-n * 10_000 // 3) + 67 for n in range(30)]
    polls = [START + next_poll(moment) for moment in arrived]
    assert list(log.times)[:30] == list(log.stamps)[:30] == polls
    assert list(log.numbers)[:30] == list(range(30))


def test_metadata_in_python(opened) -> None:
    device = opened("virtual-a,gen=60,count=3", metadata=("time",))
    assert device.rx[0].receive().times.tolist() == [START + POLL] * 3


def test_left_out_polls_are_as_good_as_others() -> None:
    """One run of many polls, of which those are left out that find nothing, and as many runs of one."""
    found: list[list[int]] = []
    for runs in (1, 2000):
        with (
            ixy.open("sim:virtual-a,gen=60,rate=7001,wire=10M,clock=virtual") as a,
            ixy.open("sim:virtual-b,sink=virtual-a,clock=virtual") as b,
        ):
            log = Log()
            path = ixy.Path(a.rx[0], b.tx[0], note_without_stamps, log)
            for _ in range(runs):
                path.run(2000 // runs)
            found.append([since(), path.counts.received, *log.times])
    assert found[0] == found[1]
    assert found[0][:2] == [2000 * POLL, 14]  # number 13 is due after 1.857 ms, and takes 67 µs


# ---------------------------------------------------------------------------------------------------------------------
# Interrupts


def test_who_waits_wakes_at_the_moment(opened) -> None:
    """A frame a millisecond: each wakes who waits just when it has arrived."""
    queue = opened("virtual-a,gen=60,rate=1000,wire=10G").rx[0]
    for number in range(5):
        assert queue.wait(1.0)
        assert since() == max(number * 1_000_000 + 67, POLL)
        assert len(queue.receive()) == 1


def test_interrupts_are_throttled(opened) -> None:
    """A frame every 10 µs, and 100 µs between two interrupts of a queue."""
    queue = opened("virtual-a,gen=60,rate=100000").rx[0]
    assert queue.wait(1.0)
    queue.bell().pace(100e-6)
    found: list[int] = []
    for _ in range(6):
        while len(queue.receive()):
            pass
        assert queue.wait(1.0)
        found.append(since())
    assert np.diff(found)[1:].tolist() == [100_000] * 4


def test_coroutines(opened) -> None:
    """Two that wait for each other's packets: there and back takes twice the delay."""
    a, b = opened("virtual-a,cable=virtual-b,delay=20us"), opened("virtual-b")

    async def echo() -> None:
        async for batch in b.rx[0]:
            b.tx[0].send(batch)

    async def ask() -> list[int]:
        moments = [since()]
        for _ in range(4):
            a.tx[0].send(a.rx[0].pool.allocate(1, 60))
            (await a.rx[0].receive_async()).free()
            moments.append(since())
        return moments

    async def both() -> list[int]:
        answering = asyncio.ensure_future(echo())
        moments = await ask()
        answering.cancel()
        return moments

    moments = asyncio.run(both())
    assert all(40_000 <= gap <= 40_000 + 10 * POLL for gap in np.diff(moments).tolist())
    assert len(set(np.diff(moments)[1:].tolist())) == 1


# ---------------------------------------------------------------------------------------------------------------------
# The same in each run

PROGRAM = """
import hashlib, json, sys
from pathlib import Path
import ixy
from ixy.path import run

@ixy.kernel
def thin(packet: ixy.Packet) -> int:
    packet[50] += 1
    return ixy.FORWARD if ixy.random(8) else ixy.DROP

directory = Path(sys.argv[1])
noise = "delay=50us,jitter=5us,loss=0.05,duplicate=0.05,reorder=0.05,corrupt=0.05,seed=7"
cards = {
    "a": f"gen=60,count=400,wire=10G,tx_pcap={directory}/back.pcap",
    "b": f"cable=c,wire=10G,{noise}",
    "c": "ready=3",
    "d": f"tx_pcap={directory}/out.pcap,wire=1G",
}
devices = [ixy.open(f"sim:{name},{options},clock=virtual", link_timeout=0) for name, options in cards.items()]
a, b, c, d = devices
paths = [ixy.Path(a.rx[0], b.tx[0]), ixy.Path(c.rx[0], d.tx[0], thin, seed=3, batch=4)]
for _ in range(4):
    run(paths, 20)
    c.tx[0].send(c.rx[0].pool.allocate(3, 100))
    a.tx[0].send(b.rx[0].receive(timeout=1e-5))
run(paths, 500, wait=0.01)
a.tx[0].send(b.rx[0].receive(timeout=0.5))
said = [
    ixy.now(),
    [ixy.sim.impairments("b", arriving=way).tolist() for way in (False, True)],
    [str(device.stats()) for device in devices],
    [path.counts for path in paths],
]
for device in devices:
    device.close()
said += [hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in ("back.pcap", "out.pcap")]
print(json.dumps(said))
"""


def test_processes_agree(tmp_path: Path) -> None:
    """A generator, a path and a loop in Python, impairments and interrupts: whatever can be read is the same in two
    processes, and in one that interprets all."""
    found: list[object] = []
    for number, variables in enumerate(({}, {}, {"IXY_JIT": "0"})):
        directory = tmp_path / str(number)
        directory.mkdir()
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(directory)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(run.stdout))
    assert found[0] == found[1] == found[2]


# ---------------------------------------------------------------------------------------------------------------------
# What has no part in it


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("tap=ixy0", "tap=ixy0 leads out of this process"),
        ("cable=unix:/nowhere", "cable=unix:/nowhere leads out of this process"),
    ],
)
def test_who_is_outside(option: str, said: str) -> None:
    with pytest.raises(AddressError, match=said):
        ixy.open(f"sim:virtual-a,{option},clock=virtual")


@pytest.mark.parametrize(("first", "second"), [("", ",clock=virtual"), (",clock=virtual", "")])
def test_one_clock_for_all(first: str, second: str) -> None:
    """Whoever comes second is refused, in whichever machine, and the first goes on."""
    with ixy.open(f"sim:virtual-a{first}", link_timeout=0) as device:
        for machine in (None, Machine(stepped=True)):
            with pytest.raises(AddressError, match="sim:virtual-b: all simulated cards of a process share a clock"):
                ixy.open(f"sim:virtual-b{second}", link_timeout=0, sim=machine)
        device.rx[0].receive()


def test_two_machines(opened) -> None:
    opened("virtual-a")
    with pytest.raises(ConfigurationError, match="another machine have a virtual clock"):
        opened("virtual-b", sim=Machine())


def test_other_devices(opened) -> None:
    opened("virtual-a")
    with pytest.raises(AddressError, match="vhost-user:/nowhere: goes by the system's clock"):
        ixy.open("vhost-user:/nowhere")


def test_one_thread(opened) -> None:
    """Neither workers nor another thread, nor a wait in `select`."""
    device = opened("virtual-a")
    device.rx[0].receive()
    with pytest.raises(ConfigurationError, match="one thread does all"):
        ixy.Workers([ixy.Path(device.rx[0], device.tx[0])])
    with pytest.raises(UnsupportedDevice, match=r"call wait\(timeout\)"):
        device.rx[0].fileno()
    raised: list[Exception] = []

    def receive() -> None:
        try:
            device.rx[0].receive()
        except OwnershipError as error:
            raised.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    thread.join()
    assert "one thread does all, and this is another" in str(raised[0])
    device.rx[0].receive()


def test_a_child_has_the_systems_clock(opened) -> None:
    opened("virtual-a")
    child = os.fork()
    if child == 0:
        os._exit(0 if abs(ixy.now() - time.monotonic_ns()) < 10**9 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert since() == 0
