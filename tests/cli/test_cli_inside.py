"""`ixy info`, `stats`, `registers` and `ps`: what they tell of devices of other processes, and of those nobody has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ixy.cli import run

pytestmark = pytest.mark.once

FORWARD = ("forward", "sim:a,gen=60,rate=100", "sim:b,sink=a")  # so slow that nothing is lost on a busy machine


Variables = dict[str, str]


@contextmanager
def runtime_directory() -> Iterator[tuple[Path, Variables]]:
    """DPDK's, for these tests alone, and what says so in the environment."""
    with tempfile.TemporaryDirectory(prefix="ixy") as name:
        yield Path(name) / "dpdk", {"RUNTIME_DIRECTORY": name}


@pytest.fixture
def directory() -> Iterator[tuple[Path, Variables]]:
    with runtime_directory() as found:
        yield found


@pytest.fixture(scope="module")
def forwarder() -> Iterator[tuple[int, Variables]]:
    """The process of `ixy forward`, once it serves telemetry, and the variables with which it was started."""
    with runtime_directory() as (place, variables):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
        command = [sys.executable, "-m", "ixy", *FORWARD]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_until(lambda: process.poll() is not None or serves(place, process))
        assert process.poll() is None
        yield process.pid, variables
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def serves(place: Path, process: subprocess.Popen[Any]) -> bool:
    return (place / f"ixy.{process.pid}" / "dpdk_telemetry.v2").exists()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def counters(ixy: Callable[..., Any], address: str, variables: Variables) -> dict[str, int]:
    return json.loads(ixy("stats", address, "--json", variables=variables).output)["counters"]


def test_a_forwarder_is_looked_into(ixy, forwarder):
    """While it runs: it is listed, its devices tell what they are, count, and have registers."""
    process, variables = forwarder
    (line,) = ixy("ps", variables=variables).output.splitlines()
    assert line.split()[:3] == [str(process), "sim:a", "sim:b"]
    assert line.endswith(" ".join(FORWARD))

    lines = ixy("info", "sim:a", variables=variables).output.splitlines()
    assert lines[0] == "sim:a"
    told = {line[2:17].strip(): line[18:] for line in lines[1:]}
    assert told["open by"].startswith(f"process {process} (")
    assert (told["model"], told["link"]) == ("82599ES SFP+", "up, 10 Gbit/s")
    assert told["receive queues"] == "1 of 128, 512 descriptors each"
    assert told["PCI Express"] == "5 GT/s × 8 lanes"
    told = json.loads(ixy("info", "sim:b", "--json", variables=variables).output)
    assert (told["open_by"], told["mac"], told["pcie_width"]) == (process, "02:69:78:79:00:02", 8)

    before = counters(ixy, "sim:b", variables)
    assert before["GPTC"] == before["QPTC[0]"] == before["PTC64"] > 0
    lines = ixy("stats", "sim:b", variables=variables).output.splitlines()
    assert int(next(line.split()[1] for line in lines if line.split()[0] == "GPTC")) >= before["GPTC"]
    assert lines[-1].endswith("counters are 0: --all shows them")

    lines = ixy("registers", "sim:a", variables=variables).output.splitlines()
    assert "  0x01028 RXDCTL[0]       0x02000000  ENABLE=1 VME=0  [§8.2.3.8.6]" in lines
    assert not any("RXDCTL[127]" in line for line in lines)
    (_, line) = ixy("registers", "sim:a", "rxdctl[127]", variables=variables).output.splitlines()
    assert line.split() == ["0x0dfe8", "RXDCTL[127]", "0x00000000", "ENABLE=0", "VME=0", "[§8.2.3.8.6]"]


def test_registers_of_two_moments(ixy, forwarder, tmp_path):
    """Heads and tails move, while packets do; what was set stays. Since a file, or within a moment."""
    _, variables = forwarder
    (tmp_path / "before.json").write_text(ixy("registers", "sim:a", "--json", variables=variables).output)
    changes: dict[str, Any] = {}

    def has_changed() -> bool:
        nonlocal changes
        ended = ixy("registers", "sim:a", "--since", "before.json", "--json", variables=variables)
        changes = json.loads(ended.output)["changes"]
        return {"RDH[0]", "RDT[0]"} <= set(changes)

    wait_until(has_changed)
    assert not {"RXDCTL[0]", "RDLEN[0]", "CTRL"} & set(changes)
    lines: list[str] = []

    def changes_now() -> bool:
        nonlocal lines
        lines = ixy("registers", "sim:a", "RDT", "CTRL", "--diff", "0.3", variables=variables).output.splitlines()
        return len(lines) > 2

    wait_until(changes_now)
    assert lines[0] == "sim:a"
    assert lines[1].split()[0] == "RDT[0]"
    assert " TAIL 0x" in lines[1]
    assert lines[2:] == ["  1 of 129 registers have changed"]


def test_watching(start, forwarder):
    """An object a line until Ctrl-C, which is no failure."""
    watch = start("stats", "sim:a", "--watch", "--interval", "0.2", "--json", variables=forwarder[1])
    assert watch.stdout is not None
    first = last = json.loads(watch.stdout.readline())
    while last["counters"]["GPRC"] == first["counters"]["GPRC"]:
        last = json.loads(watch.stdout.readline())
    watch.send_signal(signal.SIGINT)
    _, errors = watch.communicate(timeout=60)
    assert (watch.returncode, errors) == (0, "")
    assert last["rates"]["GPRC"] > 0
    assert last["rates"]["RJC"] == 0


def test_two_of_one_name(ixy, start, forwarder):
    """Each process has simulated cards of its own: which one is meant must be said. And what becomes of one that is
    killed: it is told once, and what it left is removed."""
    first, variables = forwarder
    second = start("echo", "sim:a,gen=60,rate=10", stdout=subprocess.DEVNULL, variables=variables)
    place = Path(variables["RUNTIME_DIRECTORY"]) / "dpdk"
    wait_until(lambda: serves(place, second))
    numbers = ", ".join(map(str, sorted((first, second.pid))))
    complaint = ixy("info", "sim:a", variables=variables).complaint()
    assert complaint == f"ixy: sim:a: open in several processes, {numbers}: choose by --pid"
    told = ixy("info", "sim:a", "--pid", str(second.pid), "--json", variables=variables).output
    assert json.loads(told)["open_by"] == second.pid
    assert ixy("stats", "sim:b", "--pid", str(second.pid), variables=variables).complaint().endswith("see ixy ps")

    second.kill()
    second.communicate(timeout=60)
    told = {each["pid"]: each["state"] for each in json.loads(ixy("ps", "--json", variables=variables).output)}
    assert told == {first: "runs", second.pid: "dead"}
    assert [path.name for path in place.iterdir()] == [f"ixy.{first}"]
    assert len(ixy("ps", variables=variables).output.splitlines()) == 1


def test_clearing_leaves_the_summary(ixy, start, directory):
    """The next look begins at 0, and the forwarder's own summary has all packets."""
    place, variables = directory
    assert ixy("ps", variables=variables).output.startswith("no process of ixy that serves telemetry")
    forward = start("forward", "sim:a,gen=60,count=100", "sim:b,sink=a", "--json", variables=variables)
    wait_until(lambda: serves(place, forward))
    wait_until(lambda: counters(ixy, "sim:a", variables)["GPRC"] == 100)
    cleared = ixy("stats", "sim:a", "--clear", "--json", variables=variables).output
    assert json.loads(cleared)["counters"]["GPRC"] == 100
    assert counters(ixy, "sim:a", variables)["GPRC"] == 0
    forward.send_signal(signal.SIGINT)
    output, _ = forward.communicate(timeout=60)
    (device, _) = json.loads(output.splitlines()[-1])["devices"]
    assert (device["device"], device["rx_packets"]) == ("sim:a", 100)
    assert list(place.iterdir()) == []


def test_a_card_that_nobody_has(capsys, monkeypatch, directory, tmp_path):
    """A new one, as after power-on; what its address plugs in is not: the file is not written."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(directory[0].parent))
    (tmp_path / "out.pcap").write_text("kept")
    assert run(["info", f"sim:new,card=x540,tx_pcap={tmp_path / 'out.pcap'}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["open_by"], told["model"], told["rx_queues"]) == (None, "X540-AT2", None)
    assert told["state"] == "nobody: this is a new one, as after power-on"
    assert (tmp_path / "out.pcap").read_text() == "kept"
    assert run(["registers", "sim:new"]) == 0
    assert "RXCTRL          0x00000000  RXEN=0" in capsys.readouterr().out


def test_the_loopback_interface(capsys):
    """The kernel tells of it; nothing is opened."""
    assert run(["info", "packet:lo", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["interfaces"], told["bus"], told["mtu"]) == (["lo"], "the kernel", 65536)
    assert run(["stats", "packet:lo", "--json"]) == 0
    assert "interface_rx_packets" in json.loads(capsys.readouterr().out)["counters"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info"], "Missing argument 'A'"),
        (["info", "nonsense"], "nonsense: no device address"),
        (["info", "fffe:ff:1f.7"], "no such PCI device"),
        (["info", "packet:nosuch0"], "no interface nosuch0: there are "),
        (["info", "vhost-user:/no/such"], "to open it would disturb who serves it"),
        (
            ["info", "vhost-server:/no/such"],
            "vhost-server:/no/such: no process has it open that would tell: see ixy ps",
        ),
        (["info", "sim:a", "--pid", "0"], "--pid 0: 1 to 4194304 are possible"),
        (["info", "sim:a", "--pid", "1"], "sim:a: process 1 has no such device open that it would tell of: see ixy ps"),
        (["stats", "sim:a"], "sim:a: no process has it open that would tell: see ixy ps"),
        (["stats", "packet:lo", "--clear"], "the kernel's own counters cannot be cleared"),
        (["stats", "packet:lo", "--interval", "1"], "--interval: goes with --watch"),
        (["stats", "packet:lo", "--watch", "--interval", "0"], "--interval 0.0: 0.1 to 1e+09 are possible"),
        (["registers", "packet:lo"], "packet:lo: registers are the business of the kernel's driver: ethtool -d lo"),
        (["registers", "sim:a", "FROB"], "no register that can be read is called FROB"),
        (["registers", "sim:a", "GPRC"], "no register that can be read is called GPRC"),
        (["registers", "sim:a", "--since", "no.json"], "no.json: No such file or directory"),
        (["registers", "sim:a", "--since", "/etc/passwd"], "/etc/passwd: was not written by ixy registers --json"),
        (["registers", "sim:a", "--since", "no.json", "--diff", "1"], "leave out one of them"),
    ],
)
def test_refused(capsys, monkeypatch, tmp_path, directory, arguments, words):
    """Each in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(directory[0].parent))
    assert run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ixy: ")
    assert words in line
