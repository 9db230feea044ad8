"""`ixy sim qemu`: a virtual machine with simulated 82599s, for whatever driver is to be tried on one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise

from ixy.apps.session import confine
from ixy.apps.settings import Settings
from ixy.apps.signals import stop_on_signals
from ixy.apps.sim_report import show
from ixy.errors import Error
from ixy.sim.checklist import report_of
from ixy.sim.qemu.attachment import Attachment
from ixy.sim.spec import writes_stdout

_MEMORY = "1G"
_PATIENCE = 2.0  # seconds
_STDERR = 2


def run_qemu(
    addresses: Sequence[str], arguments: Sequence[str], program: str = "qemu-system-x86_64", sandbox: bool | None = None
) -> int:
    """Start QEMU with a card for each address and serve them until it ends; QEMU's exit code.

    Args:
        addresses: of simulated cards, such as `sim:a,tap=ixy0`; the first is PCI device 0000:00:10.0 of the guest.
        arguments: of QEMU. The machine is a q35 whose memory the cards can reach; its size is that of `-m`.
        sandbox: give privileges up once QEMU has started, which keeps its own; None for whoever has some.

    Raises:
        AddressError: a card's address is malformed.
        OSError: no socket for `ixy sim report`.
        Error: QEMU is missing, it broke the protocol, or what is to be plugged into a card cannot be.
        SystemExit: a signal has ended it, and QEMU with it.
    """
    output = _STDERR if any(map(writes_stdout, addresses)) else None  # a guest's console is no part of a capture
    with stop_on_signals() as stop, closing(Attachment(addresses)) as attachment:
        if shutil.which(program) is None:
            raise Error(f"{program} is missing: install it (Debian: apt-get install qemu-system-x86)")
        command = [program, *machine_arguments(arguments), *attachment.arguments, *arguments]
        process: subprocess.Popen[bytes] | None = None
        try:
            with stop.held():
                process = subprocess.Popen(command, pass_fds=attachment.fds, stdout=output)
            attachment.release()
            if (confined := confine(Settings(sandbox=sandbox), addresses)) is not None:
                print(confined, file=sys.stderr, flush=True)
            code = _serve(attachment, process)
            _report(attachment)
            return code
        except BaseException:
            if process is not None:
                _end(process)
            raise


def _serve(attachment: Attachment, process: subprocess.Popen[bytes]) -> int:
    """Answer QEMU until it ends; its exit code. After an error the guest's accesses to the cards give ones."""
    try:
        attachment.serve()
    except Exception:
        attachment.hang_up()
        process.wait()
        raise
    attachment.hang_up()
    return process.wait()


def _report(attachment: Attachment) -> None:
    """Say what the drivers did of those cards that had one."""
    reports = [report_of(card) for card in attachment.simulated if card.used]
    if reports:
        show([report.as_dict() for report in reports], as_json=False, stream=sys.stderr)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End QEMU if it has not ended: by a signal that it obeys in a moment, or else by one that it must obey."""
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def machine_arguments(arguments: Sequence[str]) -> list[str]:
    """What makes a machine with memory that another process can reach; processors take turns, under emulation.

    Under parallel emulation QEMU drops one processor's access to a card while another's is answered.
    """
    size = _MEMORY
    for option, value in pairwise(arguments):
        if option == "-m":
            size = value.split(",")[0].removeprefix("size=")
    if size.isdigit():
        size += "M"
    result = ["-object", f"memory-backend-memfd,id=ixy-memory,size={size},share=on"]
    result += ["-machine", "q35,memory-backend=ixy-memory"]
    if "-m" not in arguments:
        result += ["-m", size]
    if not {"-accel", "-enable-kvm"} & set(arguments):
        result += ["-accel", "tcg,thread=single"]
    return result
