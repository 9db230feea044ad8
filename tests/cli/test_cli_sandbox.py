"""Privileges that commands give up: as root they do the same in a sandbox as without one, to the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest
from captures import frames, read_pcap, write_pcap
from conftest import ENVIRONMENT
from namespaces import wait_until

from ixy import open as open_device

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up"),
]

VIRTUAL = "clock=virtual"
CABLE = (f"sim:a,cable=b,wire=10G,{VIRTUAL}", f"sim:b,{VIRTUAL}")

# By a virtual clock a run can be repeated, whatever it costs.
COMMANDS = {
    "forward": ("forward", f"sim:a,gen=60,{VIRTUAL}", f"sim:b,sink=a,touch=48,{VIRTUAL}", "--touch", "--count", "300"),
    "generate": ("generate", f"sim:a,tx_pcap=out.pcap,{VIRTUAL}", "--rate", "1e6", "--count", "50"),
    "capture": ("capture", f"sim:a,gen=60,rate=1e5,{VIRTUAL}", "out.pcap", "--count", "90", "-C", "1k", "udp"),
    "dump": ("dump", "-r", "in.pcap", "-c", "5", "len > 64"),
    "replay": ("replay", "in.pcap", f"sim:a,tx_pcap=out.pcap,{VIRTUAL}"),
    "throughput": (
        "test",
        "throughput",
        *CABLE,
        "--seconds",
        "0.001",
        "--sizes",
        "64",
        "--resolution",
        "10",
        "--output",
        "report",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_as_without(ixy, tmp_path, name):
    """What is printed, but that it was a sandbox, which files there are, and the packets of captures."""
    found = []
    for sandbox in ("--sandbox", "--no-sandbox"):
        write_pcap(tmp_path / "in.pcap", frames(20))
        ended = ixy(*COMMANDS[name], "--json", sandbox)
        objects = [json.loads(line) for line in ended.output.splitlines()]
        said = [each.pop("sandbox")["missing"] for each in objects if "sandbox" in each]
        assert said == ([[]] if sandbox == "--sandbox" and name != "dump" else [])  # dump has no summary
        files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
        found.append((ended.code, objects, files, [read_pcap(path) for path in files if "out.pcap" in path.name]))
        for path in files:
            path.unlink()
    assert found[0] == found[1]
    assert found[0][0] == 0


def test_another_users_folder(ixy, tmp_path):
    """Root goes on to further files where another user may write, and says which right it has kept for that."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    ended = ixy("capture", "sim:a,gen=60,clock=virtual", "theirs/out.pcap", "--count", "90", "-C", "1k")
    assert ended.code == 0, ended.errors
    said = ended.output.splitlines()[0]
    assert said.startswith("sandboxed: CAP_DAC_OVERRIDE alone; ")
    assert said.endswith(f" system calls; makes files in {folder}")
    assert len(list(folder.iterdir())) > 3


def test_what_is_refused(tmp_path):
    """A command that asks for what was given up says what to do."""
    code = "import ixy, sys; from ixy.cli import run; ixy.sandbox(); sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "capture", "sim:a,gen=60", "out.pcap", "--count", "1"]
    ended = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == (  # before it may stand what was compiled
        "ixy: out.pcap: Operation not permitted (the command had given its privileges up by then: --no-sandbox)"
    )


def test_program_that_runs_a_command_keeps_its_rights(tmp_path):
    """A command ends and its sandbox would not: so only the process of a command has one without being asked."""
    script = """
import runpy, sys
sys.argv = ["ixy", "demo", "--count", "100"]
try:
    runpy.run_module("ixy", run_name="__main__")
finally:
    open("made", "w").close()
"""
    run = {"cwd": tmp_path, "env": ENVIRONMENT, "capture_output": True, "text": True, "check": False}
    ended = subprocess.run([sys.executable, "-c", script], **run)
    assert (ended.returncode, "sandboxed" in ended.stdout) == (0, False)
    assert (tmp_path / "made").exists()
    ended = subprocess.run([sys.executable, "-m", "ixy", "demo", "--count", "100"], **run)
    assert (ended.returncode, "sandboxed" in ended.stdout) == (0, True)


@pytest.mark.parametrize(("ours", "theirs"), [("vhost-user", "vhost-server"), ("vhost-server", "vhost-user")])
def test_the_other_end_of_a_socket_comes_back(start, tmp_path, ours, theirs):
    """Of a command in a sandbox, at either end, in a directory of another user's: it goes and comes back, twice, and
    packets are echoed as before."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    path = folder / "socket"

    def other_end():
        wait_until(lambda: theirs == "vhost-server" or path.exists(), "nobody listens")
        return open_device(f"{theirs}:{path}", link_timeout=0, ring_size=64, pool_size=128)

    def is_echoed(device):
        with device.rx[0].pool.allocate(1) as batch:
            device.tx[0].send(batch)
        with device.rx[0].receive(timeout=0.1) as batch:
            return len(batch) > 0

    with ExitStack() as stack:
        device = other_end() if theirs == "vhost-server" else None
        process = stack.enter_context(start("echo", f"{ours}:{path}", "--sandbox", "--json", "--ring", "64"))
        stack.callback(process.kill)
        for _ in range(3):
            with device or other_end() as device:
                wait_until(lambda device=device: device.link.up and is_echoed(device), "no packet comes back")
            device = None
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    summary = json.loads(output.splitlines()[-1])
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert (summary["sandbox"]["missing"], summary["forwarded"] >= 3) == ([], True)


def test_workers(start):
    """Threads that begin in a sandbox are in it, and carry packets."""
    options = ["--queues", "2", "--count", "2000", "--json", "--sandbox"]
    with start("forward", "sim:a,gen=60", "sim:b,sink=a", "--one-way", *options) as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    summary = json.loads(output.splitlines()[-1])
    assert summary["sandbox"]["missing"] == []
    assert summary["received"] == summary["forwarded"] >= 2000
