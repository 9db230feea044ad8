"""Privileges that commands give up: as root they do the same in a sandbox as without one, to the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from captures import frames, read_pcap, write_pcap
from conftest import ENVIRONMENT

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
