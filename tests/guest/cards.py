"""A guest with simulated 82599s, served by a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import Guest

from ixy.sim.pci.attachment import Attachment


@contextmanager
def guest_with_cards(
    directory: Path, addresses: Sequence[str], arguments: Sequence[str] = (), **options: Any
) -> Iterator[tuple[Guest, Attachment]]:
    """A guest with one card for each of `addresses`."""
    attachment = Attachment(addresses)
    server = threading.Thread(target=attachment.serve, name="serve")
    server.start()
    try:
        try:
            guest = Guest(
                directory, [*attachment.arguments, *arguments], shared_memory=True, pass_fds=attachment.fds, **options
            )
        finally:
            attachment.release()
        with guest:
            yield guest, attachment
    finally:
        server.join()
        attachment.close()
