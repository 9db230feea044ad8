"""What the tests with DPDK's testpmd share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ixy.bench.testpmd import Testpmd, back_end

StartPeer = Callable[..., Testpmd]


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "vhost"


@pytest.fixture
def start_peer(socket_path: Path) -> Iterator[StartPeer]:
    """Starts a testpmd that listens on `socket_path`; it ends with the test."""
    with ExitStack() as stack:

        def start(mode: str, queues: int = 1) -> Testpmd:
            peer = back_end(str(socket_path), mode, queues)
            stack.callback(peer.close)
            return peer

        yield start
