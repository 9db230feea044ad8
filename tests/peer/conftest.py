"""What the tests with DPDK's testpmd share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from testpmd import Peer, StartPeer


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "vhost"


@pytest.fixture
def start_peer(socket_path: Path) -> Iterator[StartPeer]:
    """Starts a testpmd that listens on `socket_path`; it ends with the test."""
    if shutil.which("dpdk-testpmd") is None:
        pytest.fail("dpdk-testpmd is missing: apt-get install dpdk dpdk-dev")
    with ExitStack() as stack:

        def start(mode: str, queues: int = 1) -> Peer:
            peer = Peer(socket_path, mode, queues)
            stack.callback(peer.close)
            return peer

        yield start
