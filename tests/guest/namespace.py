"""A network namespace of the host, the other end of a simulated card's wire."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from typing import Self

_SEND = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as port:
    port.bind((sys.argv[1], 0))
    for line in sys.stdin:
        port.send(bytes.fromhex(line))
"""


class Namespace:
    """A namespace with one interface that was made outside, and IPv4 only, so that nothing speaks unasked.

    Args:
        name: of the namespace.
        interface: to be moved there.
        address: that it gets, with the length of its prefix.
    """

    def __init__(self, name: str, interface: str, address: str) -> None:
        self.name = name
        self.interface = interface
        _run("ip", "netns", "add", name)
        _run("ip", "link", "set", interface, "netns", name)
        self.run("sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1")
        self.run("ip", "addr", "add", address, "dev", interface)
        self.run("ip", "link", "set", interface, "up")

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a command inside; what it prints."""
        return _run("ip", "netns", "exec", self.name, *command, text=text)

    def try_run(self, *command: str) -> bool:
        """Run a command inside; whether it did what it should."""
        whole = ["ip", "netns", "exec", self.name, *command]
        return subprocess.run(whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command inside."""
        whole = ["ip", "netns", "exec", self.name, *command]
        return subprocess.Popen(whole, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def send(self, frames: Iterable[bytes]) -> None:
        """Send raw frames through the interface."""
        lines = "".join(frame.hex() + "\n" for frame in frames)
        self.run(sys.executable, "-c", _SEND, self.interface, text=lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _run("ip", "netns", "del", self.name)


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
    return done.stdout
