"""The first SIGINT or SIGTERM ends a command, wherever it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ixy.apps.settings import Settings
from ixy.apps.signals import stop_on_signals
from ixy.jit import INTERPRETED

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@contextmanager
def pipe() -> Generator[int]:
    """The reading end of one into which nobody writes."""
    reader, writer = os.pipe()
    try:
        yield reader
    finally:
        os.close(reader)
        os.close(writer)


def block(*signals: int) -> None:
    """After these signals, wait for what never comes."""
    for number in signals:
        signal.raise_signal(number)
    with pipe() as reader:
        os.read(reader, 1)


@SIGNALS
def test_what_is_prepared_is_left(number):
    """Before the loop of a run, a signal raises at once; the handlers are those of before afterwards."""
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, stop_on_signals():
        signal.raise_signal(number)
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) == before


@SIGNALS
def test_a_loop_looks_by_itself(number):
    """In the loop a signal is noted, and ends no statement; a run with a limit tells it by its exit code."""
    with stop_on_signals() as stop, stop.looked_at():
        assert not stop
        signal.raise_signal(number)
        assert stop
    assert stop.exit_code(Settings()) == 0
    assert stop.exit_code(Settings(count=1)) == 128 + number


def test_a_loop_that_does_not_look():
    """One that waits for somebody is left all the same, after a while."""
    with pytest.raises(SystemExit) as ended, stop_on_signals() as stop, stop.looked_at():
        block(signal.SIGTERM)
    assert ended.value.code == 143


def test_a_signal_that_interrupts_nothing():
    """It comes in another thread, while the loop waits for somebody: it is seen all the same."""
    doing = Path(f"/proc/self/task/{threading.main_thread().native_id}/syscall")

    def send() -> None:
        while f" {reader:#x} " not in doing.read_text():
            continue
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    def wait() -> None:
        threading.Thread(target=send).start()
        os.read(reader, 1)

    with pipe() as reader, pytest.raises(SystemExit) as ended, stop_on_signals() as stop, stop.looked_at():
        wait()
    assert ended.value.code == 143


def test_a_timer_that_is_due_with_the_signal():
    """It had been set before, and does not say that the loop has not looked: it has had no time for that."""
    both = {signal.SIGINT, signal.SIGALRM}
    with stop_on_signals() as stop, stop.looked_at():
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
        for number in both:
            signal.raise_signal(number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
        assert stop.signal == signal.SIGINT


def test_a_second_signal():
    """It ends the loop at once, with the code of the first."""
    with pytest.raises(SystemExit) as ended, stop_on_signals() as stop, stop.looked_at():
        block(signal.SIGTERM, signal.SIGINT)
    assert ended.value.code == 143


def test_no_signal_is_lost_where_nothing_can_be_raised():
    """A signal while `__del__` runs, where Python drops exceptions: it ends what comes after."""

    class Signals:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def drop_and_block() -> None:
        Signals()
        block()

    with pytest.raises(SystemExit) as ended, stop_on_signals():
        drop_and_block()
    assert ended.value.code == 143


def test_other_threads_have_no_signals():
    """A function of the applications runs in any thread; signals are the main thread's own business there."""
    found: list[bool] = []

    def work() -> None:
        with stop_on_signals() as stop:
            found.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


@SIGNALS
def test_waiting_for_a_link(start, number):
    """A card with nothing plugged in, and an hour to wait: the command ends while it waits, without a word more."""
    process = start("echo", "sim:a", "--link-timeout", "3600")
    while "waiting for the link" not in (line := process.stderr.readline()):
        assert "compiling" in line
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (128 + number, "", "")


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_compiling(start, tmp_path):
    """With nothing in the cache compiling takes a while: the command ends amid it."""
    process = start("echo", "sim:a,gen=60", variables={"NUMBA_CACHE_DIR": str(tmp_path)})
    assert "compiling the data path" in (line := process.stderr.readline())
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    # Python writes a line once more where the signal came amid the writing.
    assert (process.returncode, output, errors.removeprefix(line)) == (143, "", "")


def test_a_reader_that_does_not_read(start):
    """The pipe of a capture is full and its reader sleeps: one signal ends the command."""
    process = start("capture", "sim:a,gen=1514", "-")
    process.stdout.buffer.read(24 + 16 + 1514)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) in (0, 143)
    process.stdout.close()
    process.stderr.close()


@SIGNALS
def test_a_virtual_machine_ends_with_the_command(start, tmp_path, number):
    """A signal to `ixy sim qemu` alone ends QEMU too, here a stand-in that would run for an hour."""
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho $$\nexec sleep 3600\n")
    program.chmod(0o755)
    process = start("sim", "qemu", "--qemu", str(program))
    machine = int(process.stdout.readline())
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(machine, 0)


def test_while_modules_are_loaded():
    """Ctrl-C before there is a command: it ends as later, without a traceback."""
    code = (
        "import signal, sys, types\n"
        "class Cli(types.ModuleType):\n"
        "    def __getattr__(self, name):\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "import ixy\n"
        "sys.modules['ixy.cli'] = Cli('ixy.cli')\n"
        "from ixy.__main__ import main\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
