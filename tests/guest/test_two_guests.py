"""`ixy forward vhost-server:… vhost-server:…` is a cable between two virtual machines."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import Guest

ADDRESSES = {"left": "10.82.98.1", "right": "10.82.98.2"}
PINGS = 100


def arguments(name: str, socket: Path) -> list[str]:
    """A card with a vhost-user back end, which may come later, and again."""
    mac = f"52:54:00:00:01:0{ADDRESSES[name][-1]}"
    return [
        *("-action", "reboot=reset"),
        *("-chardev", f"socket,id=c,path={socket},reconnect=1"),
        *("-netdev", "vhost-user,id=n,chardev=c"),
        # Without KVM, QEMU 7.2 dies of a vhost-user card that has MSI-X.
        *("-device", f"virtio-net-pci,netdev=n,addr=0x10,mac={mac},disable-legacy=on,vectors=0"),
    ]


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, once it listens: QEMU asks for its back end before it boots."""
    sockets = [tmp_path / f"{name}.socket" for name in ADDRESSES]
    command = [
        sys.executable,
        "-m",
        "ixy",
        "forward",
        "--wait",
        "--json",
        *(f"vhost-server:{path}" for path in sockets),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not all(path.exists() for path in sockets):
            assert process.poll() is None
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.05)
        yield process
        process.kill()


@pytest.fixture
def guests(tmp_path: Path, cable: subprocess.Popen[str]) -> Iterator[dict[str, Guest]]:  # noqa: ARG001
    """Two virtual machines, booted at the same time."""

    def boot(name: str) -> Guest:
        return Guest(tmp_path / name, arguments(name, tmp_path / f"{name}.socket"), memory_mib=512, shared_memory=True)

    with ThreadPoolExecutor() as threads, ExitStack() as running:
        booting = {name: threads.submit(boot, name) for name in ADDRESSES}
        yield {name: running.enter_context(guest.result()) for name, guest in booting.items()}


def set_up(guest: Guest, name: str) -> None:
    done = guest.run(
        "set -e; modprobe -a virtio_net af_packet; "
        "interface=$(basename /sys/bus/pci/devices/0000:00:10.0/virtio*/net/*); "
        f"/usr/sbin/ip addr add {ADDRESSES[name]}/24 dev $interface; /usr/sbin/ip link set $interface up"
    )
    assert done.exit_code == 0, done.output


def ping(guest: Guest, count: int) -> None:
    """Ping until the neighbour is known, then so many times."""
    address = ADDRESSES["right"]
    done = guest.run(f"until ping -q -W 1 -c 1 {address}; do :; done; ping -A -q -W 20 -c {count} {address}", 180)
    assert re.search(rf"{count} packets transmitted, {count} (packets )?received", done.output), done.output


def test_a_cable_between_two_machines(guests: dict[str, Guest], cable: subprocess.Popen[str]) -> None:
    """They find each other by ARP and answer each ping. One reboots while the other sends, and they go on."""
    for name, guest in guests.items():
        set_up(guest, name)
    ping(guests["left"], PINGS)
    guests["left"].start(f"ping -f -q {ADDRESSES['right']}")
    guests["right"].reboot()
    set_up(guests["right"], "right")
    ping(guests["left"], PINGS)
    cable.send_signal(signal.SIGINT)
    output, _ = cable.communicate(timeout=60)
    forwarded = json.loads(output.splitlines()[-1])
    assert forwarded["forwarded"] >= 2 * 2 * PINGS, output
