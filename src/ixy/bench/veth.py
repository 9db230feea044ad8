"""A veth pair in a network namespace of our own: at its near end programs are measured, its far end is ours.

The far end drops what arrives before the kernel's network stack sees it, and sends as fast as it can when it is told
to. What arrived, the interface itself counts, whatever the program at the other end says.

`started_there` starts a module in the namespace, as a process in namespaces of its own. All that it starts ends with
it, and it ends with who started it, however that ends.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ixy.apps.generate import Generator as PacketGenerator
from ixy.apps.streams import Stream
from ixy.apps.streamtable import NO_TAIL, table_of
from ixy.bench.packet_socket import new_link
from ixy.bench.rates import on_core
from ixy.bench.works import FRAME_BYTES, RING_SIZE
from ixy.device import Device
from ixy.drivers.xdp.device import NAME, XdpDevice
from ixy.drivers.xdp.program import dropping
from ixy.errors import Error, PermissionDenied
from ixy.formats.frames import udp_frame
from ixy.unsafe.sockets import load_program

if TYPE_CHECKING:
    from ixy.bpf import Program
    from ixy.drivers.xdp.device import XdpAddress

NEAR, FAR = "ixy0", "ixy1"
MEMORY = Path("/mnt")  # a file system in memory, in the namespace
CORES = 2  # of which the first is that of the program, and the last that of the far end

_PROGRAMS = {
    "mount": "mount",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "taskset": "util-linux",
    "ip": "iproute2",
}
_NAMESPACES = ("setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_MOUNTS = {"sysfs": Path("/sys"), "tmpfs": MEMORY}
_BATCH = 64  # packets that the far end sends at a time
_TURN = 1 << 10  # batches, after which its thread looks whether it is to end


def started_there(module: str, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run a module in the namespace; the objects that it prints, one a line, as they come.

    Args:
        task: it gets as its argument, in JSON.

    Raises:
        Error: there are no two cores, or a program is missing; or it fails, with the reason that it wrote last.
        PermissionDenied: this process is not root's.
    """
    _check_system()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*_NAMESPACES, sys.executable, "-m", module, json.dumps(task)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,  # a Ctrl-C is for this process, with which that one ends
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)
            if process.wait() != 0:
                said.seek(0)
                words = said.read().decode(errors="replace").strip().splitlines()
                raise Error(f"measuring on a veth pair failed: {words[-1] if words else 'no message'}")
        finally:
            process.kill()
            process.communicate()


def _check_system() -> None:
    if os.geteuid() != 0:
        raise PermissionDenied("a veth pair with AF_XDP at its ends takes root's rights: run as root (sudo)")
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise Error(f"{program} is not installed; run: apt-get install {package}")
    if len(os.sched_getaffinity(0)) < CORES:
        raise Error(f"{CORES} cores are needed, one for each end, and this process may use 1")


# ---------------------------------------------------------------------------------------------------------------------
# In the namespace


def settle_in() -> None:
    """Make the namespace a place of its own: a process calls it once, first of all."""
    with suppress(OSError):
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")  # else the kernel sends on its own accord
    for kind, place in _MOUNTS.items():
        ended = subprocess.run(["mount", "-t", kind, kind, place], capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            sys.exit(ended.stderr.strip())


@contextmanager
def pair() -> Generator[None]:
    """NEAR and FAR, up."""
    new_link(NEAR, FAR)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "del", NEAR], capture_output=True, check=False)


class _Dropping(XdpDevice):
    """An interface of which all packets that arrive are dropped."""

    def _attach(self, chosen: Program | None, rx_queues: int, wanted: XdpAddress) -> None:  # noqa: ARG002
        program = load_program(dropping(), NAME)
        try:
            self._link = self._attach_somehow(program)
        finally:
            os.close(program)


class FarEnd:
    """Our end. It is closed with the `with` block.

    Attributes:
        thread: the number of the thread that sends, 0 if none does.
    """

    def __init__(self) -> None:
        self.thread = 0
        self._device = Device(_Dropping(f"xdp:{FAR}", ring_size=RING_SIZE))
        table = table_of([Stream("far", [udp_frame(FRAME_BYTES)])], tail=NO_TAIL)
        self._generator = PacketGenerator(self._device, table, batch=_BATCH)
        self._generator.run(0)  # compiles
        self._arrived = Path(f"/sys/class/net/{FAR}/statistics/rx_packets")

    def __enter__(self) -> FarEnd:
        return self

    def __exit__(self, *_: object) -> None:
        self._device.close()

    @property
    def arrived(self) -> int:
        """Packets that the program at the near end has sent."""
        return int(self._arrived.read_text())

    @property
    def sent(self) -> int:
        """Packets that it was sent."""
        return self._generator.sent

    @contextmanager
    def sending(self) -> Generator[None]:
        """As many packets as can be, from a thread on the last core."""
        end = threading.Event()
        begun = threading.Event()

        def send() -> None:
            self.thread = threading.get_native_id()
            begun.set()
            while not end.is_set():
                self._generator.run(_TURN)

        thread = threading.Thread(target=send)
        with on_core(-1):
            thread.start()
        try:
            begun.wait()
            yield
        finally:
            end.set()
            thread.join()
            self.thread = 0
