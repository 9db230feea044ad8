"""Run in the namespace of `ixy.bench.veth`: what its far end counts of packets that are known, and the other way."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ixy.bench import veth
from ixy.bench.packet_socket import open_socket
from ixy.formats.frames import udp_frame


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def main(count: int) -> None:
    veth.settle_in()
    near = Path(f"/sys/class/net/{veth.NEAR}/statistics/rx_packets")
    with veth.pair(), veth.FarEnd() as far, open_socket(veth.NEAR) as sock:
        for _ in range(count):
            sock.send(udp_frame())
        until(lambda: far.arrived >= count)
        found = {"arrived": far.arrived, "sent_before": far.sent}
        with far.sending():
            until(lambda: far.sent > count)
            frame = sock.recv(2048)
        until(lambda: int(near.read_text()) >= far.sent)
        found |= {"frame": frame.hex(), "sent": far.sent, "received": int(near.read_text()), "thread": far.thread}
        found["interfaces"] = sorted(each.name for each in Path("/sys/class/net").iterdir())
    print(json.dumps(found))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
