"""The machine that cards are plugged into: used by several threads, in several processes, and interrupted anywhere."""

from __future__ import annotations

import dis
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from lab import open_card, write_pcap

from ixy import errors
from ixy.registers.i82599 import LINKS
from ixy.sim import machine as module
from ixy.sim.machine import Machine
from ixy.sim.rack import ALARM, PAUSE, RESUMED
from ixy.sim.wires.generator import LENGTH

THREADS = 8


@pytest.fixture
def running() -> Iterator[Machine]:
    """A machine whose thread runs while a card is open."""
    machine = Machine()
    yield machine
    machine.stop()


def all_at_once(work: Callable[[int], None]) -> None:
    """Let eight threads work at once; what one of them raises is raised here."""
    barrier = threading.Barrier(THREADS)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# ---------------------------------------------------------------------------------------------------------------------
# Threads


@pytest.mark.parametrize("machines", [1, 2])
def test_threads_plug_in_and_unplug(machines: int) -> None:
    """Eight threads, ten times each, on one machine or two: no two cards share a place, and each has its own wire."""
    hosts = [Machine() for _ in range(machines)]
    held: set[int] = set()

    def work(number: int) -> None:
        host = hosts[number % machines]
        for _ in range(10):
            card = host.plug_in(f"sim:c{number},gen={60 + number},ready=0")
            assert card.index not in held
            held.add(card.index)
            assert host.rack.inputs[card.index, LENGTH] == 60 + number
            card.write32(0x5400, number)  # a plain register, written under a pause
            assert card.read32(0x5400) == number
            assert card.read32(LINKS.offset) != 0
            held.remove(card.index)
            host.unplug(card)

    all_at_once(work)
    assert not any(host.cards for host in hosts)


def test_one_card_goes_to_one_of_eight_threads(machine: Machine) -> None:
    """All ask for the same card: one gets it, to the others it is busy; and none is left without what it was told."""
    got: list[object] = []
    busy: list[object] = []

    def work(_number: int) -> None:
        try:
            got.append(machine.plug_in("sim:a,gen=60"))
        except errors.DeviceBusy as error:
            busy.append(error)

    all_at_once(work)
    assert (len(got), len(busy)) == (1, THREADS - 1)
    machine.unplug(machine.cards["a"])
    assert not machine.cards


def test_the_process_has_one_machine() -> None:
    found: list[Machine] = []
    all_at_once(lambda _: found.append(module.machine()))
    assert len(set(map(id, found))) == 1


# ---------------------------------------------------------------------------------------------------------------------
# A thread that dies


@pytest.mark.parametrize(("turns", "said"), [(0, "cannot run"), (1, "thread .* has died")])
def test_cards_that_cannot_run(running: Machine, monkeypatch: pytest.MonkeyPatch, turns: int, said: str) -> None:
    """What ended them, in the caller's thread that compiles or in their own, is told to whoever waits for them; the
    card is free, and the next one works.
    """
    left = [0] * turns

    def die(_rack: object) -> int:
        if left:
            return left.pop()
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "run", die)
        with pytest.raises(errors.Error, match=f"{said}: OSError: no space left on device"):
            open_card(running, "sim:a,gen=60")
    assert not running.cards
    with open_card(running, "sim:a,gen=60") as device:
        assert device.link.up


def test_thread_that_dies_later(running: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next that waits for the thread is told, once; then the cards stand still, and can be closed."""
    card = running.plug_in("sim:a")
    card.write32(0x5400, 1)
    monkeypatch.setattr(running, "_tell_broken", lambda: 1 / 0)
    running.rack.control[ALARM] = 1
    assert running._thread is not None
    running._thread.join(60)
    with pytest.raises(errors.Error, match="has died: ZeroDivisionError"):
        card.write32(0x5400, 1)
    card.write32(0x5400, 2)
    assert card.read32(0x5400) == 2
    running.unplug(card)
    assert not running.cards


def test_thread_that_cannot_start(running: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has no thread for the cards: said so, and nothing stays open."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(errors.Error, match="no thread for the simulated cards: can't start new thread"):
            running.plug_in("sim:a")
    assert not running.cards
    running.unplug(running.plug_in("sim:a"))


def test_without_numba_s_compiler() -> None:
    """With Numba's own switch the kernels are interpreted, as with ours."""
    program = "import ixy; from ixy.jit import INTERPRETED; ixy.open('sim:a').close(); print(INTERPRETED)"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


# ---------------------------------------------------------------------------------------------------------------------
# Processes


def in_a_child(work: Callable[[], str]) -> str:
    """What a forked child finds; it ends like a process that is done, with all that Python does then."""
    inward, outward = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = work()
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"
        os.write(outward, found.encode())
        os._exit(0)
    os.close(outward)
    with os.fdopen(inward) as pipe:
        found = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return found


@pytest.mark.parametrize("use", ["plug in", "write", "step", "map"])
def test_a_child_cannot_use_its_parents_machine(running: Machine, use: str) -> None:
    """Everything that would move the parent's cards is refused by name."""
    card = running.plug_in("sim:a,gen=60")
    uses: dict[str, Callable[[], object]] = {
        "plug in": lambda: running.plug_in("sim:b"),
        "write": lambda: card.write32(0x5400, 1),
        "step": running.step,
        "map": lambda: running.map(None),  # type: ignore[arg-type]
    }
    found = in_a_child(lambda: str(uses[use]()))
    assert found.startswith("OwnershipError: ")
    assert f"belongs to process {os.getpid()}" in found
    running.unplug(card)


def test_a_child_closes_and_its_parent_goes_on(running: Machine, tmp_path: Path) -> None:
    """Closing in the child touches nothing: the parent's wires stay, its thread runs, and its capture is its own."""
    path = tmp_path / "out.pcap"
    card, recorder = running.plug_in("sim:a,gen=60,ready=0"), running.plug_in(f"sim:b,tx_pcap={path}")

    def close() -> str:
        running.unplug(card)
        running.unplug(recorder)
        running.stop()
        return "closed"

    assert in_a_child(close) == "closed"
    card.write32(0x5400, 3)
    assert card.read32(LINKS.offset) != 0
    assert path.stat().st_size == 24
    for plugged in (card, recorder):
        running.unplug(plugged)


def test_a_child_has_a_machine_of_its_own() -> None:
    """What a child opens is its own, of whatever name, and its parent's cards go on."""
    parents = module.machine()
    card = parents.plug_in("sim:a,gen=60")

    def work() -> str:
        host = module.machine()
        own = host.plug_in("sim:a,gen=61")
        own.write32(0x5400, 1)
        size = int(host.rack.inputs[own.index, LENGTH])
        host.unplug(own)
        return f"{host is parents} {size}"

    assert in_a_child(work) == "False 61"
    card.write32(0x5400, 2)
    assert parents.rack.inputs[card.index, LENGTH] == 60
    parents.unplug(card)


EXIT = """
import sys
from ixy.sim.machine import Machine
machine = Machine()
card = machine.plug_in(sys.argv[1])
machine.plug_in("sim:b,gen=60")
card.write32(0x5400, 1)
sys.exit(7)
"""


def test_the_process_ends_with_open_cards(tmp_path: Path) -> None:
    """Silently, with its own exit code, and with a capture that is whole."""
    path = tmp_path / "out.pcap"
    done = subprocess.run([sys.executable, "-c", EXIT, f"sim:a,tx_pcap={path}"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
    assert path.stat().st_size == 24


# ---------------------------------------------------------------------------------------------------------------------
# Interrupts


class Interrupt(BaseException):
    """What the tests raise."""


def looks_for_signals(frame: FrameType) -> bool:
    """Whether the bytecode that a frame is at is one after which Python runs the handlers of signals."""
    name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
    return name.startswith("CALL") or name == "RESUME" or "JUMP_BACKWARD" in name


@contextmanager
def interrupted_at(number: int) -> Iterator[list[int]]:
    """Raise `Interrupt` at place `number` of those in the machine's file where a signal's handler might.

    What is yielded counts them.
    """
    count, before = [0], dict[FrameType, bool]()

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename != module.__file__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            count[0] += before.get(frame, False)
            if before.pop(frame, False) and count[0] == number:
                raise Interrupt
            before[frame] = looks_for_signals(frame)
        return trace

    tracer = sys.gettrace()  # that of coverage
    gc.disable()  # it would close another test's machine, and that be interrupted instead
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(tracer)
        gc.enable()


def interrupt_everywhere(work: Callable[[], object], check: Callable[[], None]) -> None:
    """Do the work again and again, interrupted at one place after the other, until it is done; check after each."""
    number = 0
    while True:
        number += 1
        try:
            with interrupted_at(number) as count:
                work()
        except Interrupt:
            check()
        else:
            assert count[0] < number
            assert number > 10
            return


def await_running(machine: Machine) -> None:
    """No pause stays: sooner or later the thread goes on."""
    deadline = time.monotonic() + 60
    while machine.rack.control[PAUSE] != machine.rack.control[RESUMED]:
        assert time.monotonic() < deadline
        time.sleep(0.0001)


def test_interrupted_pause(running: Machine) -> None:
    """Wherever it was interrupted, the cards go on, and the next write to a register takes effect."""
    card = running.plug_in("sim:a,gen=60")

    def check() -> None:
        await_running(running)
        card.write32(0x5400, 5)
        assert card.read32(0x5400) == 5

    def pause() -> None:
        with running.paused(), running.paused():
            pass

    interrupt_everywhere(pause, check)
    running.unplug(card)


@pytest.mark.once
@pytest.mark.parametrize("stepped", [True, False])
@pytest.mark.parametrize("wire", ["gen=60", "cable=b", "rx_pcap={}"])
def test_interrupted_plugging(tmp_path: Path, wire: str, stepped: bool) -> None:
    """Plugging in that was interrupted leaves the card free; unplugging that was can be done again."""
    machine = Machine(stepped=stepped)
    address = "sim:a," + wire.format(write_pcap(tmp_path / "in.pcap", [bytes(60)]))

    def in_and_out() -> None:
        machine.unplug(machine.plug_in(address))

    def check() -> None:
        for card in list(machine.cards.values()):
            machine.unplug(card)
        card = machine.plug_in(address)
        card.write32(0x5400, 6)
        assert card.wired
        machine.unplug(card)
        assert not machine.cards
        assert not running_threads()

    interrupt_everywhere(in_and_out, check)


def running_threads() -> list[threading.Thread]:
    """Threads that run cards."""
    return [thread for thread in threading.enumerate() if thread.name == "ixy-sim"]
