"""Starting up: help, version, tracing, and the commands that look after the machine's cards."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ixy.cli import COMMANDS, run


def test_help_does_not_wait_for_libraries():
    """`ixy --help` and each command's help load neither NumPy, Numba nor Rich, which take most of a second."""
    for arguments in ([], *([command.name] for command in COMMANDS)):
        command = [sys.executable, "-X", "importtime", "-m", "ixy", *arguments, "--help"]
        process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in process.stderr.splitlines()}
        assert "click" in imported
        assert not imported & {"numpy", "numba", "rich"}


def test_every_command_shows_examples(capsys):
    """Each command's help has examples that name the command."""
    for command in COMMANDS:
        assert run([command.name, "--help"]) == 0
        lines = [line.strip().removeprefix("sudo ") for line in capsys.readouterr().out.splitlines()]
        assert any(line.startswith(f"ixy {command.name} ") or line == f"ixy {command.name}" for line in lines)


@pytest.mark.once
@pytest.mark.parametrize("arguments", [[], ["bench"], ["test"], ["sim"]])
def test_a_list_of_commands_has_whole_sentences(capsys, monkeypatch, arguments):
    """In 80 columns each command is told in a line, which nothing is cut off."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*arguments, "--help"]) == 0
    _, _, commands = capsys.readouterr().out.partition("Commands:\n")
    assert commands.splitlines()
    assert [line for line in commands.splitlines() if not line.endswith(".") or line.endswith("..")] == []


@pytest.mark.once
@pytest.mark.parametrize(
    ("words", "completion"),
    [("ixy re", "plain,registers\nplain,replay"), ("ixy replay ", "file,"), ("ixy dump -r ", "file,")],
)
def test_a_shell_completes_commands_and_files(ixy, words, completion):
    """As Click's scripts for shells ask: what can stand in the place of the last word."""
    place = str(words.count(" "))
    ended = ixy(variables={"_IXY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": place})
    assert ended.output.strip() == completion


def test_no_arguments_print_the_help(capsys):
    """`ixy` alone lists the commands."""
    assert run([]) == 0
    assert "  forward " in capsys.readouterr().out


def test_version(ixy):
    """`ixy --version` prints one line."""
    ended = ixy("--version")
    assert ended.code == 0
    assert ended.output.startswith("ixy ")


@pytest.mark.parametrize("arguments", [("--trace", "demo", "--count", "10"), ("demo", "--count", "10", "--trace")])
def test_trace_explains_register_accesses(ixy, arguments):
    """`--trace` before or after the command: each access by name, with its fields and the datasheet's section."""
    ended = ixy(*arguments)
    assert ended.code == 0
    lines = ended.errors.splitlines()
    assert lines
    assert all(line.startswith(("sim:demo-a ", "sim:demo-b ")) and "[§" in line for line in lines)
    assert any("write RXCTRL" in line and "RXEN 0x1" in line and "[§8.2.3.8.10]" in line for line in lines)


def test_silent_without_trace(ixy):
    """A command that has nothing to complain of leaves standard error empty."""
    assert ixy("demo", "--count", "10").errors == ""


def test_verbose_says_what_is_done(ixy):
    """`-v` tells of the cards that come up."""
    assert "ixy: sim:demo-a: 82599ES SFP+ ready" in ixy("demo", "--count", "10", "-v").errors


def test_list_as_json(ixy):
    """`ixy list --json` is an array with the attributes of each card, whatever the machine has."""
    devices = json.loads(ixy("list", "--json").output)
    assert all({"address", "name", "driver", "numa_node", "usable", "reason"} <= set(device) for device in devices)


def test_list_into_a_pipe_has_a_line_per_card(ixy):
    """The table has a head and a line for each card, and is not folded where there is no terminal."""
    devices = json.loads(ixy("list", "--json").output)
    lines = ixy("list").output.splitlines()
    assert len(lines) == 1 + len(devices)
    for device, line in zip(devices, lines[1:], strict=True):
        assert line.startswith(device["address"])
        assert device["name"] in line


def test_bind_asks_for_vfio_unless_told(monkeypatch, capsys):
    """`ixy bind` hands on address, driver, user and force; vfio-pci is what it binds to by default, for root alone."""
    calls = []

    def bind(address, driver, user, *, force):
        calls.append((address, driver, user, force))

    monkeypatch.setattr("ixy.bus.binding.bind", bind)
    assert run(["bind", "0000:03:00.0"]) == 0
    assert run(["bind", "0000:03:00.1", "--driver", "ixgbe", "--force"]) == 0
    assert run(["bind", "0000:03:00.0", "--user", "ada"]) == 0
    assert calls == [
        ("0000:03:00.0", "vfio-pci", None, False),
        ("0000:03:00.1", "ixgbe", None, True),
        ("0000:03:00.0", "vfio-pci", "ada", False),
    ]
    assert capsys.readouterr().out.splitlines() == [
        "0000:03:00.0: bound to vfio-pci",
        "0000:03:00.1: bound to ixgbe",
        "0000:03:00.0: bound to vfio-pci, for ada to use",
    ]


def test_unbind_says_who_has_the_card_now(monkeypatch, capsys):
    """`ixy unbind` names the driver that took the card, or says that there is none."""
    drivers = {"0000:03:00.0": "ixgbe", "0000:03:00.1": None}
    monkeypatch.setattr("ixy.bus.binding.unbind", lambda address, *, force: drivers[address])  # noqa: ARG005
    assert [run(["unbind", address]) for address in drivers] == [0, 0]
    first, second = capsys.readouterr().out.splitlines()
    assert first == "0000:03:00.0: given back to ixgbe"
    assert second == "0000:03:00.1: free; the kernel has no driver for it"


def test_setup_prints_what_was_done(monkeypatch, capsys):
    """`ixy setup` hands on the number of pages and prints each line of the answer."""
    monkeypatch.setattr("ixy.packets.hugepages.setup", lambda pages: [f"reserved {pages}", "mounted"])
    assert run(["setup", "--pages", "7"]) == 0
    assert capsys.readouterr().out == "reserved 7\nmounted\n"


def test_setup_compiles_only_when_it_is_asked_to(monkeypatch, capsys):
    """`ixy setup --compile` prints each line of what was compiled, reserves nothing, and fails if that is not kept."""
    monkeypatch.setattr("ixy.packets.hugepages.setup", lambda _pages: pytest.fail("reserved pages"))
    for complete in (True, False):
        preparation = SimpleNamespace(run=lambda: ["3 in all", "kept"], complete=complete)
        monkeypatch.setattr("ixy.bench.prepare.Preparation", lambda preparation=preparation: preparation)
        assert run(["setup", "--compile"]) == int(not complete)
        assert capsys.readouterr().out == "3 in all\nkept\n"
