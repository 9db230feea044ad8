"""Network namespaces with an interface each, in which real programs run."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest


def needs(*tools: str) -> list[pytest.MarkDecorator]:
    """Marks of a test that makes namespaces, and runs these programs there."""
    missing = [tool for tool in ("ip", *tools) if shutil.which(tool) is None]
    return [
        pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make network namespaces"),
        pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}"),
    ]


needs_tap = pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="needs /dev/net/tun")


def run(*command: str, timeout: float = 120) -> str:
    """A command that has to succeed; its output."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stdout} {result.stderr}"
    return result.stdout


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def tap_name(end: str) -> str:
    """A name for a TAP device that no other process's tests use."""
    return f"ixy{os.getpid() % 100_000}{end}"


class Namespace:
    """A network namespace with one interface, `net`."""

    def __init__(self, name: str) -> None:
        self.name = name
        run("ip", "netns", "add", name)

    def take(self, interface: str, addresses: Sequence[str], *, offloads: bool = True) -> None:
        """Move an interface here, and give it addresses."""
        run("ip", "link", "set", interface, "netns", self.name)
        self.run("ip", "link", "set", interface, "name", "net")
        if not offloads:
            # Else the kernel hands over segments larger than a frame, with checksums that are still to be made.
            self.run("ethtool", "-K", "net", "tx", "off", "tso", "off", "gso", "off", "gro", "off")
        for address in addresses:
            self.run("ip", "address", "add", address, "dev", "net", *(["nodad"] if ":" in address else []))
        for interface in ("lo", "net"):
            self.run("ip", "link", "set", interface, "up")

    @property
    def mac(self) -> str:
        """The interface's Ethernet address."""
        return self.run("cat", "/sys/class/net/net/address").strip()

    def run(self, *command: str, timeout: float = 120) -> str:
        return run("ip", "netns", "exec", self.name, *command, timeout=timeout)

    @contextmanager
    def running(self, *command: str, ready: str) -> Iterator[subprocess.Popen[str]]:
        """A command in the background, from when it has said that it is ready; interrupted at the end."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert process.stdout
            assert any(ready in line for line in process.stdout), f"{command[0]} did not start"
            yield process
        finally:
            process.send_signal(2)
            process.communicate(timeout=30)

    def close(self) -> None:
        run("ip", "netns", "del", self.name)
