"""iPXE's intelx driver, unmodified, judges the simulated 82599: the boot firmware fetches files over the card."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from cards import served_cards
from harness import packages
from namespace import Namespace

from ixy.sim.qemu.attachment import Attachment

HOST = "10.82.95.1"
SIZE = 1 << 20
ROUNDS = 2
TIMEOUT = 240.0  # seconds

_SCRIPT = f"""#!ipxe
set round:int32 0
:again
inc round
dhcp net0 || goto failed
echo round ${{round}}: ${{net0/chip}} ${{net0/mac}} ${{net0/ip}}
imgfetch tftp://{HOST}/tftp${{round}} || goto failed
imgfetch http://{HOST}/http${{round}} || goto failed
ifstat net0
ifclose net0
iseq ${{round}} {ROUNDS} || goto again
echo all is fetched
:for-ever
sleep 1
goto for-ever
:failed
echo it failed: ${{errno}}
ifstat net0
goto for-ever
"""


@contextmanager
def servers(host: Namespace, directory: Path) -> Iterator[None]:
    """DHCP and TFTP by dnsmasq, HTTP by Python's library; all serve the directory's files."""
    dnsmasq = host.start(
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--bind-interfaces"),
        *(f"--interface={host.interface}", "--dhcp-range=10.82.95.10,10.82.95.19", "--dhcp-no-override"),
        *(f"--dhcp-leasefile={directory / 'leases'}", "--enable-tftp", f"--tftp-root={directory}", "--pid-file="),
    )
    http = host.start(sys.executable, "-m", "http.server", "--bind", HOST, "--directory", str(directory), "80")
    try:
        yield
    finally:
        for server in (dnsmasq, http):
            server.terminate()
            server.communicate()


class Firmware:
    """A machine that runs iPXE, which carries out the script.

    Args:
        attachment: its cards.
        directory: for the script, and for what is said on the console.
    """

    def __init__(self, attachment: Attachment, directory: Path) -> None:
        script, self._console = directory / "script", directory / "console"
        script.write_text(_SCRIPT)
        machine = [packages.qemu(), "-nodefaults", "-no-user-config", "-display", "none", "-m", "128M"]
        machine += ["-object", "memory-backend-memfd,id=memory,size=128M,share=on"]
        machine += ["-machine", "q35,memory-backend=memory,graphics=off", "-accel", "tcg,thread=single"]
        machine += ["-kernel", str(packages.ipxe()), "-initrd", str(script), "-serial", f"file:{self._console}"]
        self._process = subprocess.Popen(
            [*machine, *attachment.arguments],
            pass_fds=attachment.fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        attachment.release()

    def console(self) -> str:
        """What it has said so far."""
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def memory(self) -> bytes:
        files = Path(f"/proc/{self._process.pid}/fd").iterdir()
        (memory,) = [file for file in files if "memfd:memory" in str(file.readlink())]
        return memory.read_bytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What is served: a file for each protocol and round, none like another."""
    directory = tmp_path / "served"
    directory.mkdir()
    for number, name in enumerate(f"{kind}{round_}" for kind in ("tftp", "http") for round_ in range(1, ROUNDS + 1)):
        (directory / name).write_bytes(random.Random(number).randbytes(SIZE))
    return directory


@pytest.mark.skipif(not shutil.which("dnsmasq"), reason="dnsmasq (Debian package dnsmasq-base) is not installed")
def test_files_are_fetched_twice(files: Path, tmp_path: Path) -> None:
    """Link, DHCP, 1 MiB by TFTP and as much by HTTP, then all that again, the card being closed between.

    In the end all four files are in the machine's memory, byte for byte.
    """
    with (
        served_cards(["sim:a,tap=ixyboot0"]) as attachment,
        Namespace("ixyboot", "ixyboot0", f"{HOST}/24") as host,
        servers(host, files),
        Firmware(attachment, tmp_path) as firmware,
    ):
        deadline = time.monotonic() + TIMEOUT
        while "all is fetched" not in (text := firmware.console()):
            assert time.monotonic() < deadline, text
            assert "it failed" not in text, text
            time.sleep(0.1)
        mac = attachment.cards[0].card.mac.hex(":")
        for number in range(1, ROUNDS + 1):
            assert re.search(rf"round {number}: \S+ {mac} 10\.82\.95\.1\d", text), text
        memory = firmware.memory()
        for file in files.glob("*[0-9]"):
            assert file.read_bytes() in memory, file.name
        assert attachment.machine.dma_refused(attachment.cards[0].card) == 0
