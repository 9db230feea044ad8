"""The transmit ring of an AF_PACKET socket, over a socket that this test fills."""

from __future__ import annotations

import socket
from contextlib import suppress

from ixy.drivers.packet.datapath import tx_batch, tx_room
from ixy.drivers.packet.rings import PacketTxRing
from ixy.drivers.rings import leave, seize
from ixy.packets.mempool import Mempool
from ixy.packets.packets import new_packets
from ixy.packets.pool import available, pools, take_soon

SIZE = 1024  # more than the other end takes (net.unix.max_dgram_qlen)


def test_what_a_full_socket_holds_back_goes_as_soon_as_there_is_room() -> None:
    """Packets wait in the ring, which has room for more of them; once the socket takes some, they go whenever somebody
    asks for room, without a further packet. All come in their order, and all buffers come back.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def read() -> list[bytes]:
        found: list[bytes] = []
        with suppress(BlockingIOError):
            while True:
                found.append(theirs.recv(2048, socket.MSG_DONTWAIT))
        return found

    with ours, theirs, Mempool(SIZE) as pool:
        ring, packets = PacketTxRing(ours.fileno(), 2 * SIZE), new_packets(SIZE)
        assert take_soon(pools(), pool.number, packets, SIZE) == SIZE
        packets.lengths[:] = 60
        for i, buffer in enumerate(packets.ids):
            pools().bytes[buffer, :60] = i & 0xFF
        sent = [bytes([i & 0xFF]) * 60 for i in range(SIZE)]
        assert seize(ring.state.state)
        assert tx_batch(ring.state, pools(), packets, 0, SIZE) == SIZE
        found = read()
        assert 0 < len(found) < SIZE
        assert ring.in_flight == SIZE - len(found)
        while len(found) < SIZE:
            assert tx_room(ring.state, pools(), 1) >= SIZE
            more = read()
            assert more
            found += more
        assert found == sent
        assert (ring.in_flight, tx_room(ring.state, pools(), 1)) == (0, 2 * SIZE)
        leave(ring.state.state)
        assert available(pools(), pool.number) == SIZE
