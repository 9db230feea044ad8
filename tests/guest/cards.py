"""A guest with simulated 82599s, served by a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from harness import Guest, QemuCrashError

from ixy.sim.qemu.attachment import Attachment


def _serve_and_hang_up(attachment: Attachment) -> None:
    """Serve; at the end, or after an error, let go of QEMU, which else waits for an answer."""
    try:
        attachment.serve()
    finally:
        attachment.hang_up()


@contextmanager
def served_cards(addresses: Sequence[str]) -> Iterator[Attachment]:
    """One card for each of `addresses`, for a QEMU that must be started, and end, meanwhile.

    Whoever starts it releases the attachment then.
    """
    attachment = Attachment(addresses)
    server = threading.Thread(target=_serve_and_hang_up, args=(attachment,), name="serve")
    server.start()
    try:
        yield attachment
    finally:
        attachment.release()
        server.join()
        attachment.close()


@contextmanager
def guest_with_cards(
    directory: Path, addresses: Sequence[str], arguments: Sequence[str] = (), **options: Any
) -> Iterator[tuple[Guest, Attachment]]:
    """A guest with one card for each of `addresses`.

    QEMU 7.2 crashes now and then while a guest sets up an IOMMU in front of proxied devices. Then another one is
    started, once.
    """
    with ExitStack() as stack:
        try:
            machine = stack.enter_context(_booted(directory, addresses, arguments, **options))
        except QemuCrashError:
            machine = stack.enter_context(_booted(directory / "again", addresses, arguments, **options))
        yield machine


@contextmanager
def _booted(
    directory: Path, addresses: Sequence[str], arguments: Sequence[str], **options: Any
) -> Iterator[tuple[Guest, Attachment]]:
    with served_cards(addresses) as attachment:
        guest = Guest(
            directory, [*attachment.arguments, *arguments], shared_memory=True, pass_fds=attachment.fds, **options
        )
        attachment.release()
        with guest:
            yield guest, attachment
