"""A guest: a virtual machine that sees the host's files and runs commands for a test."""

from __future__ import annotations

import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from harness import initramfs, packages
from harness.packages import CACHE, HarnessError

# On a busy host the kernel takes the processor's counter for a faster or slower one than it is, so it goes by the HPET.
_KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check random.trust_cpu=on "
    "clocksource=hpet nowatchdog net.ifnames=0 iomem=relaxed"
)


class GuestDeathError(HarnessError):
    """QEMU ended while something was expected of the guest."""


class QemuCrashError(GuestDeathError):
    """QEMU has crashed."""


class GuestTimeoutError(HarnessError):
    """The guest did not do something by its deadline."""


@dataclass(frozen=True)
class Result:
    """What became of a command.

    Attributes:
        exit_code: of the shell that ran it.
        output: what it printed, standard output and standard error together.
        directory: its working directory, as the host sees it: the files that it left.
    """

    exit_code: int
    output: str
    directory: Path


class Guest:
    """A virtual machine under emulation (TCG), from boot to power-off.

    The guest's `/` is the host's, and so are the interpreter and the package under test; what the guest writes there is
    forgotten, and what the host changes there later may go unseen. `/run/share` is shared both ways, and below it lies
    each command's working directory.

    Attributes:
        share: what the guest sees as `/run/share`.
        boot_seconds: from QEMU's start until the guest was ready.

    Args:
        directory: of this guest's logs and of its commands' working directories.
        arguments: more of QEMU's arguments, such as network cards.
        memory_mib: the guest's memory.
        iommu: whether the machine has an IOMMU (VT-d) in front of its devices, and the kernel uses it.
        shared_memory: back the guest's memory by a file that another process can map, for devices behind
            `x-pci-proxy-dev`. Their interrupts do not pass the IOMMU, so it remaps none then.
        pass_fds: file descriptors that QEMU inherits.
        processors: of the guest; they take turns.
        kernel_arguments: more of the kernel's arguments, such as `pci=nomsi`.
        boot_timeout: seconds until the guest must be ready for commands.

    Raises:
        HarnessError: a package is missing; `GuestDeathError`, `GuestTimeoutError`: it did not boot.
    """

    def __init__(
        self,
        directory: Path,
        arguments: Sequence[str] = (),
        *,
        memory_mib: int = 1024,
        iommu: bool = False,
        shared_memory: bool = False,
        pass_fds: Sequence[int] = (),
        processors: int = 1,
        kernel_arguments: Sequence[str] = (),
        boot_timeout: float = 120,
    ) -> None:
        self.directory = directory
        self._serial_log = directory / "serial.log"
        self._qemu_log = directory / "qemu.log"
        self.share = directory / "share"
        self.share.mkdir(parents=True)
        self._count = 0
        self._boots = 0
        self._received = b""
        self._exit_codes: dict[int, int] = {}
        self._control, remote = socket.socketpair()
        command = [
            *_machine(directory, memory_mib, iommu, shared_memory, processors, kernel_arguments),
            *_agent_port(remote.fileno()),
            *arguments,
        ]
        started = time.monotonic()
        with remote, self._qemu_log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[remote.fileno(), *pass_fds],
            )
        try:
            self._await("boot", lambda: self._boots == 1, boot_timeout)
        except BaseException:
            self.kill()
            raise
        self.boot_seconds = time.monotonic() - started

    def run(self, command: str, timeout: float = 60) -> Result:
        """Run shell `command` in the guest and wait for its end.

        Raises:
            GuestDeathError: QEMU ended first.
            GuestTimeoutError: the command took longer than `timeout` seconds; the guest is gone then.
        """
        return self.wait(self.start(command), timeout)

    def start(self, command: str) -> int:
        """Start shell `command` in the guest beside what already runs there; the number is for `wait`.

        Raises:
            GuestDeathError: QEMU has ended.
        """
        self._count += 1
        place = self.place(self._count)
        place.mkdir()
        (place / "command").write_text(command)
        (place / "output").touch()
        self._tell(b"%d\n" % self._count)
        return self._count

    def place(self, number: int) -> Path:
        """The working directory of command `number`."""
        return self.share / str(number)

    def wait(self, number: int, timeout: float = 60) -> Result:
        """Wait for the command that `start` gave `number`. Raises like `run`."""
        self._await(f"command {number}", lambda: number in self._exit_codes, timeout, number)
        return Result(self._exit_codes[number], self._output(number), self.place(number))

    def reboot(self, timeout: float = 120) -> None:
        """Restart the machine; needs QEMU's argument `-action reboot=reset`, for else a reboot is its end.

        Raises:
            GuestDeathError: QEMU ended instead.
            GuestTimeoutError: the guest is not ready again within `timeout` seconds; it is killed then.
        """
        boots = self._boots
        self._tell(b"reboot\n")
        self._await("reboot", lambda: self._boots > boots, timeout)

    def close(self, timeout: float = 120) -> None:
        """Power the guest off.

        Raises:
            GuestDeathError: QEMU had ended before.
            GuestTimeoutError: it is not off within `timeout` seconds; it is killed then.
        """
        try:
            self._tell(b"poweroff\n")
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise GuestTimeoutError(self._report(f"the guest is not off after {timeout:g} s")) from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End QEMU at once."""
        self._process.kill()
        self._process.wait()
        self._control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        was_killed = self._control.fileno() < 0
        if kind is None and not was_killed:
            self.close()
        else:
            self.kill()

    def _tell(self, line: bytes) -> None:
        """Send the agent a line."""
        try:
            self._control.sendall(line)
        except OSError:
            raise self._died("it was told something") from None

    def _died(self, when: str, number: int | None = None) -> GuestDeathError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        crashed = self._process.poll() in (-signal.SIGSEGV, -signal.SIGABRT)
        self.kill()
        kind = QemuCrashError if crashed else GuestDeathError
        return kind(self._report(f"QEMU ended with exit code {self._process.returncode} before {when}", number))

    def _await(self, what: str, done: Callable[[], bool], timeout: float, number: int | None = None) -> None:
        """Take in what the agent says until `done()`."""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            while not done():
                if not selector.select(max(0, deadline - time.monotonic())):
                    self.kill()
                    raise GuestTimeoutError(self._report(f"{what} did not end within {timeout:g} s", number))
                self._take_lines(what, number)

    def _take_lines(self, what: str, number: int | None) -> None:
        try:
            data = self._control.recv(4096)
        except ConnectionResetError:
            data = b""
        if not data:
            raise self._died(f"{what} had ended", number)
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            if line == b"ready":
                self._boots += 1
            else:
                ended, exit_code = map(int, line.split())
                self._exit_codes[ended] = exit_code

    def _output(self, number: int) -> str:
        return (self.place(number) / "output").read_text(errors="replace")

    def _report(self, reason: str, number: int | None = None) -> str:
        """`reason` with everything that was written until then."""
        parts = [reason, "--- serial log", _tail(self._serial_log), "--- QEMU", _tail(self._qemu_log)]
        if number is not None:
            parts += [f"--- output of command {number}", self._output(number)]
        return "\n".join(parts)


def _tail(path: Path) -> str:
    """The last 100 lines of a log that may not exist yet."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join(text.splitlines()[-100:])


def _machine(
    directory: Path,
    memory_mib: int,
    iommu: bool,
    shared_memory: bool,
    processors: int,
    kernel_arguments: Sequence[str],
) -> list[str]:
    """QEMU's command for a machine that boots to the agent."""
    kernel = packages.kernel()
    initrd = directory / "initrd.img"
    initrd.write_bytes(initramfs.build(kernel, packages.busybox()))
    kept = CACHE / "numba"
    kept.mkdir(exist_ok=True)
    command = [packages.qemu(), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    # One thread: while a proxied device answers one processor, QEMU would drop another's access to it.
    command += [
        "-smp",
        str(processors),
        "-accel",
        "tcg,tb-size=512,thread=single",
        "-cpu",
        "Nehalem",
        "-m",
        f"{memory_mib}M",
    ]
    command += ["-kernel", str(kernel.image), "-initrd", str(initrd), "-serial", f"file:{directory}/serial.log"]
    command += _memory(memory_mib) if shared_memory else ["-machine", "q35"]
    append = " ".join([_KERNEL_ARGUMENTS, *kernel_arguments])
    if iommu:
        remapping = "off" if shared_memory else "on"
        command += ["-device", f"intel-iommu,intremap={remapping},caching-mode=on,device-iotlb=on"]
        append += " intel_iommu=on iommu=nopt"
    if iommu and shared_memory:
        append += " vfio_iommu_type1.allow_unsafe_interrupts=1"
    command += ["-append", append]
    command += _share("host", Path("/"), read_only=True)
    command += _share("modules", kernel.module_directory.parent, read_only=True)
    command += _share("share", directory / "share", read_only=False)
    command += _share("kept", kept, read_only=False)
    return command


def _memory(memory_mib: int) -> list[str]:
    backend = f"memory-backend-memfd,id=mem,size={memory_mib}M,share=on"
    return ["-object", backend, "-machine", "q35,memory-backend=mem"]


def _share(tag: str, path: Path, *, read_only: bool) -> list[str]:
    """Directory `path` of the host, for the guest to mount by 9p under `tag`."""
    access = ",readonly=on" if read_only else ""
    backend = f"local,id={tag},path={path},security_model=none,multidevs=remap{access}"
    return ["-fsdev", backend, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def _agent_port(fd: int) -> list[str]:
    """The guest's second serial port, on socket `fd`."""
    return ["-chardev", f"socket,id=agent,fd={fd}", "-serial", "chardev:agent"]
