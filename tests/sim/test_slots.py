"""What is rare on a card is compiled when it is switched on, in time, and not before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from lab import BROADCAST, arrive, batch_of, frame, open_card, read_pcap, receive_all, write_pcap

import ixy
from ixy.device import Device
from ixy.jit import INTERPRETED
from ixy.registers import i82599 as reg
from ixy.sim import slots
from ixy.sim.card import state
from ixy.sim.card.dma import dma
from ixy.sim.card.iommu import READ
from ixy.sim.machine import Machine
from ixy.sim.rack import ALARM, STARTED, new_rack
from ixy.sim.wires.kinds import KINDS
from ixy.sim.wires.tape import tape

MEMORY = 16 * 4096

# Kernels that `ixy demo` has no use for, by module and name
RARE_CARD = (
    *("checksum", "classify", "coalesce", "descriptors", "filters", "flow_director", "formats", "interrupts", "iommu"),
    *("judge", "layers", "offload", "pools", "rate", "timestamps", "write_back"),
)
RARE_MODULES = {
    "ixy.pacing",
    "ixy.formats.pcap",
    "ixy.formats.pcapng",
    "ixy.formats.words",
    "ixy.formats.writing",
    "ixy.sim.pause",
    "ixy.sim.short",
    "ixy.sim.timed",
    "ixy.tables.flows",
    *(f"ixy.sim.card.{name}" for name in RARE_CARD),
    *(f"ixy.sim.wires.{name}" for name in ("cable", "clock", "flight", "record", "replay", "stream", "tap")),
}
RARE_KERNELS = {"ixy.sim.wires.generator.next_due"}

# A command in a process of its own; its last line on standard error names all that was compiled for it.
COUNTING = """
import json, sys
from numba.core import event
class Compilations(event.Listener):
    names = []
    def on_start(self, event):
        function = event.data["dispatcher"].py_func
        self.names.append(f"{function.__module__}.{function.__qualname__}")
    def on_end(self, event):
        pass
event.register("numba:compile", Compilations())
from ixy.cli import main
try:
    main()
finally:
    print(json.dumps(Compilations.names), file=sys.stderr)
"""


def compiled_by(cache: Path, *command: str) -> set[str]:
    """What a command compiles that has only this cache."""
    ended = subprocess.run(
        [sys.executable, "-c", COUNTING, *command],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(ended.stderr.splitlines()[-1]))


def is_rare(name: str) -> bool:
    return name.rpartition(".")[0] in RARE_MODULES or name in RARE_KERNELS


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_the_demo_compiles_nothing_rare(tmp_path: Path) -> None:
    """From an empty cache: a generator, the forwarder and a sink. A capture at a rate adds the clock, and no more."""
    demo = compiled_by(tmp_path, "demo", "--count", "1000")
    assert {"ixy.sim.loop.run", "ixy.sim.card.receive.receive", "ixy.sim.wires.sink.emit"} <= demo
    assert {name for name in demo if is_rare(name)} == set()
    capture = compiled_by(tmp_path, "capture", "sim:a,gen=60,rate=1e5", "/dev/null", "--count", "10")
    paced = {name for name in capture if is_rare(name) and "ixy.formats" not in name}
    assert {name.rpartition(".")[0] for name in paced} == {
        "ixy.pacing",
        "ixy.sim.wires.clock",
        "ixy.sim.wires.generator",
    }
    assert "ixy.sim.loop.run" not in capture


def full(machine: Machine) -> set[int]:
    """The slots that have a kernel."""
    return set(np.flatnonzero(machine.rack.slots).tolist())


def test_who_switches_something_on_finds_its_kernel_there(machine: Machine, tmp_path: Path) -> None:
    """A card that only sends and receives needs none; each wire and each register brings its own."""
    source = write_pcap(tmp_path / "in.pcap", [frame()])
    with open_card(machine, "sim:a,gen=60"), open_card(machine, "sim:b,sink=a"):
        assert full(machine) == set()
    with open_card(machine, f"sim:a,rx_pcap={source},tx_pcap={tmp_path / 'out.pcap'}"):
        kinds = {kind.option: kind.kind for kind in KINDS}
        wires = {slots.NEXT_FRAME + kinds["rx_pcap"], slots.EMIT + kinds["tx_pcap"]}
        assert full(machine) == wires
    with open_card(machine, "sim:a", metadata=["flags", "vlan"]) as device:
        assert full(machine) == wires | {slots.CLASSIFY, slots.STRIP_VLAN}
        device.set_promiscuous(False)
        device.set_vlan_filter(7, enabled=True)
        assert full(machine) == wires | {slots.CLASSIFY, slots.STRIP_VLAN, slots.CHECK_VLAN}
    card = machine.plug_in("sim:a")
    card.stand_behind(4096, 0x80)
    assert slots.TRANSLATE in full(machine)
    machine.unplug(card)


def test_an_empty_slot_is_not_called_but_asked_for() -> None:
    """On a rack that no machine looks after: a card that is told of an IOMMU refuses until the kernel is there."""
    rack = new_rack(np.zeros(MEMORY, np.uint8), 0, tape())
    rack.allowed[:] = 1
    rack.words[4096 // 8] = 2 * 4096 | 1  # root table: bus 0 has a context table
    rack.words[2 * 4096 // 8 + 1] = 1
    rack.words[2 * 4096 // 8] = 2 << 2 | 1  # which lets function 0 through untranslated
    rack.cards[0, state.ROOT_TABLE] = 4096
    assert dma(rack, 0, 0x1234, 4, READ) == -1
    assert rack.control[ALARM] == 1
    assert slots.provide_wanted(rack)
    assert dma(rack, 0, 0x1234, 4, READ) == 0x1234
    assert not slots.provide_wanted(rack)


def send_tagged(device: Device, pool: ixy.Mempool, count: int) -> list[bytes]:
    """Hand `count` packets to the card, every third of which it is to tag; what is to leave it.

    The cards must not move meanwhile: our driver asks for no offload, so it is added to its descriptors.
    """
    frames = [frame(number, 100) for number in range(count)]
    assert device.tx[0].send(batch_of(pool, frames)) == count
    for number in range(1, count, 3):
        device.tx[0].ring.state.descriptors[2 * number + 1] |= reg.TX_VLE
        frames[number] = frames[number][:12] + b"\x81\0\0\0" + frames[number][12:]
    return frames


def test_an_offload_that_a_descriptor_asks_for_first(machine: Machine, tmp_path: Path) -> None:
    """The card finds no kernel for it amid its turn: the turn is taken again, and all leaves it once and in order."""
    path = tmp_path / "out.pcap"
    with ixy.Mempool(64) as pool, open_card(machine, f"sim:a,tx_pcap={path}") as device:
        assert slots.BUILD not in full(machine)
        frames = send_tagged(device, pool, 10)
        assert machine.step() == 10
    assert read_pcap(path) == frames


def test_an_offload_that_a_running_card_is_asked_for(tmp_path: Path) -> None:
    """The same where a thread runs the cards."""
    machine, path = Machine(), tmp_path / "out.pcap"
    with ixy.Mempool(64) as pool, open_card(machine, f"sim:a,tx_pcap={path}") as device:
        with machine.paused():
            frames = send_tagged(device, pool, 10)
        deadline = time.monotonic() + 120
        while device.sent() < 10:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert read_pcap(path) == frames


def test_a_feature_is_switched_on_while_packets_flow() -> None:
    """A running card is told to classify what it receives: all packets arrive, once and in order."""
    machine = Machine()
    with open_card(machine, "sim:a,gen=60,count=2000") as device:
        frames = wait_for_frames(device, 1, limit=1)
        assert slots.CLASSIFY not in full(machine)
        assert sent(machine) < 2000
        machine.cards["a"].write32(reg.RXCSUM.offset, reg.RXCSUM.value(PCSD=1))
        assert slots.CLASSIFY in full(machine)
        frames += wait_for_frames(device, 1999)
        assert [int.from_bytes(data[-4:], "big") for data in frames] == list(range(2000))
        assert device.stats().rx_dropped == 0


def wait_for_frames(device: Device, number: int, limit: int = 32) -> list[bytes]:
    """So many frames, up to `limit` at a time, that arrive within two minutes."""
    frames: list[bytes] = []
    deadline = time.monotonic() + 120
    while len(frames) < number:
        assert time.monotonic() < deadline
        with device.rx[0].receive(limit) as batch:
            frames += [bytes(packet) for packet in batch]
    return frames


# ---------------------------------------------------------------------------------------------------------------------
# Wires that keep times start when what they deliver is being received


def sent(machine: Machine) -> int:
    return machine.sink_report("a", "a").sent


def test_a_paced_wire_waits_until_its_first_frame_is_taken(machine: Machine) -> None:
    """A million frames a second and nobody who looks: one lies in the ring. Once it is taken, the clock starts."""
    with open_card(machine, "sim:a,gen=60,rate=1e6", ring_size=64, pool_size=128) as device:
        opened = time.monotonic()
        while time.monotonic() < opened + 0.01:  # in which ten thousand would be due
            begun = time.monotonic()
            machine.step()
        assert sent(machine) == 1
        assert len(receive_all(device)) == 1
        while sent(machine) < 1000:
            machine.step()
        assert time.monotonic() - begun >= 998e-6
        assert device.stats().rx_dropped > 0  # from then on it waits for nobody


def test_a_replay_keeps_its_times_from_then_on(machine: Machine, tmp_path: Path) -> None:
    """Three frames, an hour apart: the second one is due an hour after the first was taken."""
    path = write_pcap(tmp_path / "in.pcap", [frame(number) for number in range(3)], gap=3600)
    with open_card(machine, f"sim:a,rx_pcap={path},timing=original") as device:
        machine.step(10)
        words = machine.rack.inputs[machine.cards["a"].index]
        assert len(receive_all(device)) == 1
        machine.step(10)
        words[STARTED] -= 3599 * 10**9
        machine.step(10)
        assert receive_all(device) == []
        words[STARTED] -= 10**9
        machine.step(10)
        assert len(receive_all(device)) == 1


def test_a_paced_wire_does_not_wait_for_what_the_card_filters_out(machine: Machine) -> None:
    """No frame is for this station, so none ever lies in the ring."""
    with open_card(machine, "sim:a,gen=60,rate=1e9,count=500", ring_size=64, pool_size=128) as device:
        device.set_promiscuous(False)
        device.mac = bytes.fromhex("02aabbccddff")
        while sent(machine) < 500:
            machine.step()
        assert device.stats().rx_packets == 0
        arrive(machine, frame(destination=BROADCAST))
        assert len(receive_all(device)) == 1
