"""A guest that drives a simulated card by Linux's own ixgbe, and the host's end of the card's wire."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from harness import Guest
from namespace import Namespace

from ixy.registers import Register
from ixy.registers import i82599 as reg
from ixy.sim.card import state
from ixy.sim.qemu.attachment import Attachment

HOST, GUEST = "10.82.99.1", "10.82.99.2"


class Rig(NamedTuple):
    """A guest whose eth0 is a simulated card, and the namespace at the other end of its wire."""

    guest: Guest
    attachment: Attachment
    host: Namespace

    def run(self, command: str, timeout: float = 120) -> str:
        """What a command prints, in the guest; it must not fail."""
        result = self.guest.run(command, timeout)
        assert result.exit_code == 0, result.output
        return result.output

    def statistics(self) -> dict[str, int]:
        """`ethtool -S`."""
        lines = re.findall(r"^\s+(\w+): (\d+)$", self.run("ethtool -S eth0"), re.MULTILINE)
        return {name: int(value) for name, value in lines}

    def counter(self, register: Register) -> int:
        """What the model has counted for a statistics register since the card was made."""
        return self.attachment.simulated[0].statistics.total(register)

    def queue_counter(self, queue: int, column: int) -> int:
        return int(self.attachment.machine.rack.queues[0, queue, column])

    def mac(self) -> bytes:
        return bytes.fromhex(self.run("cat /sys/class/net/eth0/address").strip().replace(":", ""))

    def bring_up(self) -> None:
        """Address, link, and the neighbours' addresses, so that nobody asks for them."""
        self.run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1; /usr/sbin/ip link set eth0 up")
        self.run(f"/usr/sbin/ip addr replace {GUEST}/24 dev eth0")
        self.await_link()
        host_mac = self.host.run("cat", f"/sys/class/net/{self.host.interface}/address").strip()
        self.run(f"/usr/sbin/ip neigh replace {HOST} lladdr {host_mac} dev eth0")
        self.host.run("ip", "neigh", "replace", GUEST, "lladdr", self.mac().hex(":"), "dev", self.host.interface)

    def await_link(self) -> None:
        self.run("until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do usleep 10000; done")

    def receives(self, frames: list[bytes]) -> int:
        """How many of `frames` the card stores for the guest."""
        before = self.stored()
        offered = self.counter(reg.TPR)
        self.host.send(frames)
        deadline = time.monotonic() + 30
        while self.counter(reg.TPR) - offered < len(frames):
            assert time.monotonic() < deadline, "the frames did not arrive at the card"
            time.sleep(0.001)
        with self.attachment.machine.paused():  # the last one is stored then
            return self.stored() - before

    def stored(self) -> int:
        return sum(self.queue_counter(queue, state.QUEUE_RX) for queue in range(64))
