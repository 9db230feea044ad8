"""DPDK's own client of its telemetry, unmodified, reads what a process here tells (apt-get install dpdk-dev)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

import ixy

CLIENT = "dpdk-telemetry.py"
pytestmark = [
    pytest.mark.peer,
    pytest.mark.once,
    pytest.mark.skipif(shutil.which(CLIENT) is None, reason=f"needs {CLIENT} (apt-get install dpdk-dev)"),
]


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A runtime directory of this test's."""
    with tempfile.TemporaryDirectory(prefix="ixy") as name:
        monkeypatch.setenv("RUNTIME_DIRECTORY", name)
        yield


def client(*arguments: str, said: str = "") -> list[str]:
    """The lines that it prints."""
    run = subprocess.run([CLIENT, *arguments], input=said, capture_output=True, text=True, timeout=60, check=True)
    return run.stdout.splitlines()


def test_it_lists_the_process() -> None:
    """By its file prefix, with the command that connects."""
    with ixy.serve_telemetry() as telemetry:
        assert telemetry.prefix == f"ixy.{os.getpid()}"
        assert telemetry.prefix in client("--list")
    assert telemetry.prefix not in client("--list")


def test_it_asks() -> None:
    """Commands of DPDK's, and of ours, in one conversation; each answer is JSON, under the command's name."""
    with ixy.serve_telemetry() as telemetry, ixy.open("sim:a,cable=b") as a, ixy.open("sim:b") as b:
        with a.rx[0].pool.allocate(7, 100) as batch:
            assert a.tx[0].send(batch) == 7
        received = 0
        while received < 7:
            with b.rx[0].receive(timeout=10.0) as batch:
                received += len(batch)
        commands = ["/", "/ethdev/list", "/nonsense"]
        commands += [f"/ethdev/{what},{b.number}" for what in ("info", "stats", "xstats", "link_status")]
        commands.append(f"/ixy/registers,{b.number}")
        lines = client("-f", telemetry.prefix, said="\n".join([*commands, "quit", ""]))
        answers = [json.loads(line) for line in lines]
        told = {name: value for answer in answers for name, value in answer.items()}
        registers = {name: reading.value for name, reading in b.registers().items()}
    assert set(commands[:3]) | {"/ethdev/info", "/ethdev/xstats"} < set(told)
    assert told["/ethdev/list"] == [a.number, b.number]
    assert (told["/ethdev/info"]["name"], told["/ethdev/info"]["mtu"]) == ("sim:b", 1500)
    assert (told["/ethdev/stats"]["ipackets"], told["/ethdev/stats"]["ibytes"]) == (7, 7 * 104)
    assert (told["/ethdev/xstats"]["GPRC"], told["/ethdev/xstats"]["QPRC[0]"]) == (7, 7)
    assert told["/ethdev/link_status"] == {"status": "UP", "speed": 10_000, "duplex": "full-duplex"}
    assert told["/nonsense"] is None
    assert told["/ixy/registers"] == registers
