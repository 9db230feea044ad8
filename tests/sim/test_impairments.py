"""Cables that delay, lose, duplicate, reorder and corrupt frames, and say what they did to each."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from lab import batch_of, frame, number_of, open_card, receive_all

import ixy
from ixy import errors, sim
from ixy.apps.report import Report
from ixy.device import Device
from ixy.packets.mempool import Mempool
from ixy.sim.fates import Fate
from ixy.sim.machine import Machine
from ixy.sim.rack import FLIGHT, INWARD_PART
from ixy.sim.wires import flight

NEVER = Fate.LOST | Fate.OVERFLOWED


@pytest.fixture
def pool() -> Iterator[Mempool]:
    pool = Mempool(1024)
    yield pool
    pool.release()


def send(machine: Machine, device: Device, pool: Mempool, frames: list[bytes]) -> None:
    """Hand frames to a card, and let it send them."""
    for start in range(0, len(frames), 200):
        assert device.tx[0].send(batch_of(pool, frames[start : start + 200])) == len(frames[start : start + 200])
        for _ in range(4):
            machine.step()


def wait(machine: Machine, name: str) -> None:
    """Until none of the frames that a card sent is under way."""
    while True:
        done = machine.impaired(name)
        if done.arrived == done.sent + done.duplicated - done.lost - done.overflowed:
            return
        machine.step()


def carried(machine: Machine, impairments: str, frames: list[bytes]) -> tuple[list[bytes], np.ndarray]:
    """What arrives at the other end of a cable, and the cable's account of it."""
    with (
        Mempool(1024) as pool,
        open_card(machine, f"sim:a,cable=b,{impairments}") as a,
        open_card(machine, "sim:b") as b,
    ):
        found: list[bytes] = []
        for start in range(0, len(frames), 100):
            send(machine, a, pool, frames[start : start + 100])
            wait(machine, "a")
            found += receive_all(b)
        return found, machine.impairments("a")


def inverted(data: bytes, bit: int) -> bytes:
    """A frame of which one bit is inverted."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_the_account_is_what_happened(machine: Machine, pool: Mempool) -> None:
    """All impairments at once: what arrives, in which order and with which bytes, is what the records say."""
    frames = [frame(number, 60 + 7 * number) for number in range(200)]
    wire = "delay=50us,jitter=20us,loss=0.1,duplicate=0.1,reorder=0.1,corrupt=0.1,seed=1"
    with open_card(machine, f"sim:a,cable=b,{wire}") as a, open_card(machine, "sim:b") as b:
        send(machine, a, pool, frames)
        wait(machine, "a")
        found, told = receive_all(b), machine.impairments("a")
    assert told["number"][told["what"] & Fate.COPY == 0].tolist() == list(range(200))
    assert set(told["what"].tolist()) > {0, Fate.LOST, Fate.COPY, Fate.REORDERED, Fate.CORRUPTED, Fate.DUPLICATED}
    assert (told["arrives"] == 0).tolist() == (told["what"] == Fate.LOST).tolist()
    assert told["length"].tolist() == [60 + 7 * number for number in told["number"]]
    expected: list[bytes] = []
    for row in sorted((row for row in told if row["arrives"]), key=lambda row: row["arrives"]):
        data = frames[row["number"]]
        expected.append(inverted(data, row["bit"]) if row["what"] & Fate.CORRUPTED else data)
    assert found == expected


@pytest.mark.parametrize("loss", ["0", "1e-9"])
def test_nothing_that_happens_is_recorded_too(machine: Machine, loss: str) -> None:
    """A cable that might lose, and does not: all frames arrive, in order, whole, when they were sent."""
    frames = [frame(number) for number in range(100)]
    found, told = carried(machine, f"loss={loss}", frames)
    assert found == frames
    assert told["what"].tolist() == [0] * 100
    assert told["bit"].tolist() == [-1] * 100
    assert (told["arrives"] == told["sent"]).all()


def test_all_is_lost(machine: Machine) -> None:
    found, told = carried(machine, "loss=1,duplicate=1,corrupt=1,delay=1us,reorder=1", [frame()] * 50)
    assert found == []
    assert told["what"].tolist() == [Fate.LOST] * 50


def test_all_is_duplicated_and_corrupted(machine: Machine) -> None:
    """A copy is whole, and both are recorded, one behind the other."""
    frames = [frame(number, 100) for number in range(50)]
    found, told = carried(machine, "duplicate=1,corrupt=1", frames)
    assert told["what"].tolist() == [Fate.DUPLICATED | Fate.CORRUPTED, Fate.COPY] * 50
    assert found[1::2] == frames
    assert found[::2] == [inverted(data, bit) for data, bit in zip(frames, told["bit"][::2].tolist(), strict=True)]


@pytest.mark.parametrize("option", ["loss", "duplicate", "corrupt", "reorder"])
def test_shares(machine: Machine, option: str) -> None:
    """Of 2000 frames a quarter: 500 with a standard deviation of 19, and not of those that follow each other."""
    _, told = carried(machine, f"delay=1us,{option}=0.25,seed=7", [frame()] * 2000)
    wanted = {"loss": Fate.LOST, "duplicate": Fate.DUPLICATED, "corrupt": Fate.CORRUPTED, "reorder": Fate.REORDERED}
    hit = told["what"][told["what"] & Fate.COPY == 0] & wanted[option] != 0
    assert 400 < hit.sum() < 600
    assert 75 < (hit[1:] & hit[:-1]).sum() < 175  # a sixteenth: 125, 13 and more


def test_delay_and_jitter(machine: Machine) -> None:
    """Arrivals are spread evenly over 200 ± 100 µs after sending; a frame that is reordered is not delayed at all."""
    _, told = carried(machine, "delay=200us,jitter=100us,reorder=0.1,seed=3", [frame()] * 1000)
    delays = told["arrives"] - told["sent"]
    reordered = told["what"] == Fate.REORDERED
    assert (delays[reordered] == 0).all()
    delays = delays[~reordered]
    assert 100_000 <= delays.min() < 102_000
    assert 298_000 < delays.max() <= 300_000
    assert 140 < (delays < 150_000).sum() < 310  # a quarter of 900


def test_nothing_arrives_early(machine: Machine, pool: Mempool) -> None:
    """The clock of the records is the monotonic one, and a frame is there when its time has come."""
    with open_card(machine, "sim:a,cable=b,delay=20ms") as a, open_card(machine, "sim:b") as b:
        before = time.monotonic_ns()
        send(machine, a, pool, [frame()])
        wait(machine, "a")
        after = time.monotonic_ns()
        (row,) = machine.impairments("a")
        assert before <= row["sent"]
        assert row["sent"] + 20_000_000 == row["arrives"] <= after
        assert len(receive_all(b)) == 1


def fates(machine: Machine, seed: str, count: int = 300) -> tuple[list[int], list[int]]:
    """What becomes of the frames of both directions."""
    with (
        Mempool(1024) as pool,
        open_card(machine, f"sim:a,cable=b,loss=0.5{seed}") as a,
        open_card(machine, "sim:b") as b,
    ):
        for device in (a, b):
            send(machine, device, pool, [frame()] * count)
        return machine.impairments("a")["what"].tolist(), machine.impairments("b")["what"].tolist()


def test_seeds(machine: Machine) -> None:
    """The same seed gives the same fates, none given is 0; another one, and the other direction, give others."""
    first = fates(machine, ",seed=1")
    assert fates(Machine(stepped=True), ",seed=1") == first
    assert fates(machine, "") == fates(machine, ",seed=0") != first
    assert first[0] != first[1]


def test_both_directions_of_a_cable(machine: Machine, pool: Mempool) -> None:
    """One address says it for both; where both say something, each says it for what its card sends."""
    with open_card(machine, "sim:a,cable=b,loss=1") as a:
        with open_card(machine, "sim:b") as b:
            for device in (a, b):
                send(machine, device, pool, [frame()] * 3)
            assert machine.impaired("a").lost == machine.impaired("b").lost == 3
            assert len(machine.impairments("b", arriving=True)) == 3
        with open_card(machine, "sim:b,cable=a,duplicate=1") as b:
            for device in (a, b):
                send(machine, device, pool, [frame()] * 3)
            assert (receive_all(b), len(receive_all(a))) == ([], 6)
            assert machine.impaired("b").duplicated == 3
            assert machine.impairments("a", arriving=True)["what"].tolist() == [Fate.DUPLICATED, Fate.COPY] * 3
        with open_card(machine, "sim:b") as b:
            send(machine, b, pool, [frame()])
            assert receive_all(a) == []


def test_a_cable_that_no_longer_impairs(machine: Machine, pool: Mempool) -> None:
    """What its address said goes with the card, and with it what is under way."""
    with open_card(machine, "sim:b") as b:
        with open_card(machine, "sim:a,cable=b,delay=5s") as a:
            for device in (a, b):
                send(machine, device, pool, [frame(1)])
        with open_card(machine, "sim:a") as a:
            for device in (a, b):
                send(machine, device, pool, [frame(2)])
            assert [number_of(data) for data in receive_all(a) + receive_all(b)] == [2, 2]
            with pytest.raises(errors.ConfigurationError, match="sim:a: nothing impairs its frames"):
                machine.impairments("a")
    with pytest.raises(errors.ConfigurationError, match="sim:a: nothing impairs its frames"):
        machine.impaired("a")


def test_more_than_can_be_under_way(machine: Machine, pool: Mempool) -> None:
    """Of 16,384 + 100 frames with a delay of a second the last are lost, and told from those that chance loses."""
    count = flight.FRAMES + 100
    with open_card(machine, "sim:a,cable=b,delay=10s") as a, open_card(machine, "sim:b"):
        for start in range(0, count, 200):
            send(machine, a, pool, [frame()] * min(200, count - start))
        assert machine.impaired("a") == (count, 0, 0, 0, 0, 0, 100)
        told = machine.impairments("a")
        assert told["what"].tolist() == [0] * flight.FRAMES + [Fate.OVERFLOWED] * 100
        assert (told["arrives"][-100:] == 0).all()


def test_a_frame_that_is_too_long(machine: Machine) -> None:
    """A wrong driver's packet of 20 KB does not get into others' places."""
    with open_card(machine, "sim:a,cable=b,delay=1us") as a, open_card(machine, "sim:b"):
        words = machine.rack.tape_words
        way = int(machine.rack.outputs[machine.cards["a"].index, FLIGHT])
        flight.depart(machine.rack, way, 0, 20_000, 1)
        assert a.link.up
        assert machine.impairments("a")["what"].tolist() == [Fate.OVERFLOWED]
        assert int(words[way + flight.UNDER_WAY]) == 0


def test_the_last_million_is_kept() -> None:
    """Three records more than there is room for: the first three are gone, the others are in order."""
    words = np.zeros(flight.SIZE // 8 - flight.FRAMES * flight.FRAME_BYTES // 8, np.int64)
    words[flight.RECORDED] = flight.RECORDS - 1
    for number in range(4):
        flight.note(words, 0, 1000 + number, 1, 2, Fate.LOST, 60, -1)
    kept = flight.records(words, 0)
    assert len(kept) == flight.RECORDS
    assert kept["number"][-4:].tolist() == [1000, 1001, 1002, 1003]
    assert words[flight.COUNTED] == 4


@pytest.mark.parametrize("delays", [[5, 3, 9, 1, 1, 7, 3, 3, 0, 5], list(range(50)), list(range(50, 0, -1)), [4] * 20])
def test_frames_land_by_time_and_then_by_order(machine: Machine, delays: list[int]) -> None:
    """Whatever the order in which they set out, and while others leave."""
    with open_card(machine, "sim:a,cable=b,delay=0ns"):
        rack = machine.rack
        way = int(rack.inputs[machine.cards["a"].index, FLIGHT])
        assert way * 8 == machine.cards["a"].index * (8 << 30) + INWARD_PART
        for number, due in enumerate(delays):
            flight.launch(rack, way, number, 0, 60 + number, 0, due, 0, -1)
        found: list[int] = []
        while (place := flight.land(rack.tape_words, way, 1000)) >= 0:
            found.append(flight.length_of(rack.tape_words, way, place) - 60)
        assert found == sorted(range(len(delays)), key=lambda number: (delays[number], number))
        assert sorted(rack.tape_words[way + flight.WORDS + 3 * flight.FRAMES :][: flight.FRAMES].tolist()) == list(
            range(flight.FRAMES)
        )


def test_what_is_no_card() -> None:
    """Who asks need not have opened one, nor imported more than `ixy`."""
    program = "import ixy\ntry:\n    ixy.sim.impairments('a')\nexcept ixy.Error as error:\n    print(error)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("sim:a: nothing impairs its frames: open it with a cable that does")
    with pytest.raises(TypeError, match="card must be a name, such as 'a', not 3"):
        sim.impairments(3)  # type: ignore[arg-type]


def test_a_running_machine() -> None:
    """Cards that their thread runs: a path echoes what comes, a cable delays it there and back; the process's machine
    tells by name."""
    with (
        ixy.open("sim:imp-a,cable=imp-b,delay=300us,seed=4", link_timeout=0) as a,
        ixy.open("sim:imp-b", link_timeout=0) as b,
        Mempool(64) as pool,
    ):
        path = ixy.Path(b.rx[0], b.tx[0])
        path.run()
        a.tx[0].send(batch_of(pool, [frame(number) for number in range(20)]))
        found: list[bytes] = []
        while len(found) < 20:
            path.run()
            found += receive_all(a)
        assert [number_of(data) for data in found] == list(range(20))
        there, back = sim.impairments("sim:imp-a"), sim.impairments("imp-a", arriving=True)
        assert ((back["arrives"] - there["sent"]) >= 600_000).all()
        assert (back["sent"] >= there["arrives"]).all()


def test_who_waits_is_woken_by_a_delayed_frame() -> None:
    """The cards sleep while it is under way."""
    with (
        ixy.open("sim:imp-c,cable=imp-d,delay=30ms", link_timeout=0) as a,
        ixy.open("sim:imp-d", link_timeout=0) as b,
        Mempool(64) as pool,
    ):
        b.rx[0].wait(0)
        a.tx[0].send(batch_of(pool, [frame(5)]))
        with b.rx[0].receive(timeout=60) as batch:
            assert len(batch) == 1
        assert time.monotonic_ns() >= sim.impairments("imp-d", arriving=True)["arrives"][0]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_report_of_a_command(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """Both directions, once each, though both addresses name the cable."""
    addresses = ["sim:imp-e,cable=imp-f,loss=1", "sim:imp-f,cable=imp-e,duplicate=0.5"]
    with (
        ixy.open(addresses[0], link_timeout=0) as a,
        ixy.open(addresses[1], link_timeout=0) as b,
        Mempool(64) as pool,
        Report([a, b], addresses, as_json=as_json),
    ):
        a.tx[0].send(batch_of(pool, [frame()] * 7))
        while a.sent() < 7:
            time.sleep(0.001)
    said = capsys.readouterr().out
    if as_json:
        cables = json.loads(said.splitlines()[-1])["cables"]
        assert [(cable["from"], cable["to"]) for cable in cables] == [
            ("sim:imp-e", "sim:imp-f"),
            ("sim:imp-f", "sim:imp-e"),
        ]
        assert [(cable["sent"], cable["lost"]) for cable in cables] == [(7, 7), (0, 0)]
    else:
        nothing = "arrived 0, lost {0}, duplicated 0, reordered 0, corrupted 0, overflowed 0"
        assert f"sim:imp-e → sim:imp-f: sent 7, {nothing.format(7)}\n" in said
        assert f"sim:imp-f → sim:imp-e: sent 0, {nothing.format(0)}\n" in said
