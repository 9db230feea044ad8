"""The harness itself: a virtual machine boots, runs commands, and never outlives a deadline."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Guest, GuestDeathError, GuestTimeoutError


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with Guest(tmp_path_factory.mktemp("guest")) as machine:
        print(f"boot: {machine.boot_seconds:.1f} s")
        yield machine


def test_a_command_returns_exit_code_output_and_files(guest: Guest) -> None:
    """A command prints on both streams, writes a file and fails: the host gets all three."""
    result = guest.run("echo out; echo err >&2; printf 42 > answer; exit 7")
    assert result.exit_code == 7
    assert result.output == "out\nerr\n"
    assert (result.directory / "answer").read_text() == "42"


def test_the_guest_sees_the_hosts_files_but_cannot_change_them(guest: Guest, tmp_path: Path) -> None:
    """The guest overwrites a file of the host: it sees its own version, the host keeps the old one."""
    file = tmp_path / "file"
    file.write_text("host")
    result = guest.run(f"cat {file}; echo; echo guest > {file}; cat {file}")
    assert result.output == "host\nguest\n"
    assert file.read_text() == "host"


def test_the_interpreter_of_the_tests_runs_in_the_guest(guest: Guest) -> None:
    """Python with NumPy runs inside, on the guest's own kernel."""
    result = guest.run(
        f"{sys.executable} -c 'import numpy, platform; print(numpy.arange(4).sum(), platform.release())'"
    )
    assert result.exit_code == 0, result.output
    total, kernel = result.output.split()
    assert total == "6"
    assert kernel == guest.run("uname -r").output.strip()


def test_modules_load_by_name(guest: Guest) -> None:
    """The kernel's own ixgbe driver and what it depends on come from the unpacked package."""
    result = guest.run("modprobe ixgbe && cat /proc/modules")
    assert result.exit_code == 0, result.output
    assert any(line.startswith("ixgbe ") for line in result.output.splitlines())


def test_commands_run_side_by_side(guest: Guest) -> None:
    """One command waits for what a later one does, and ends with its own exit code."""
    waiting = guest.start("mkfifo /tmp/side-by-side; echo made; cat /tmp/side-by-side; exit 3")
    result = guest.run("until [ -p /tmp/side-by-side ]; do usleep 1000; done; echo from the second > /tmp/side-by-side")
    assert result.exit_code == 0, result.output
    first = guest.wait(waiting)
    assert first.exit_code == 3
    assert first.output == "made\nfrom the second\n"


def test_a_hang_ends_at_its_deadline_and_shows_the_serial_log(tmp_path: Path) -> None:
    """A command writes to the console and never ends: the error has the console's text and the command's output."""
    guest = Guest(tmp_path / "guest")
    with pytest.raises(GuestTimeoutError) as hung:
        guest.run("echo said by the command; echo said on the console > /dev/console; sleep 1000000", timeout=3)
    assert "command 1 did not end within 3 s" in str(hung.value)
    assert "said on the console" in str(hung.value)
    assert "said by the command" in str(hung.value)
    with pytest.raises(GuestDeathError):
        guest.run("true")


def test_a_machine_that_qemu_refuses_is_an_error_with_qemus_words(tmp_path: Path) -> None:
    """A device that does not exist."""
    with pytest.raises(GuestDeathError, match="no-such-device"):
        Guest(tmp_path / "guest", ["-device", "no-such-device"])


def test_a_panic_is_an_error_with_the_kernels_words(guest: Guest) -> None:
    """The guest's kernel crashes under a command: the error shows the panic, and no deadline is waited for."""
    with pytest.raises(GuestDeathError, match="Kernel panic"):
        guest.run("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger")
