"""A learning switch: packets go to the port where their destination was seen, else to all others.

python examples/switch.py sim:a,gen=60 sim:b,sink=a sim:c,sink=a
"""

import sys
import time
from contextlib import ExitStack

import ixy
from ixy import tables


class Station(tables.Entry):
    port: int


class Switch(ixy.Record):
    stations = ixy.array(1 << 12, Station)
    others = ixy.array(64)  # by port: the verdict for all others


@ixy.kernel
def enter(packet: ixy.Packet, here: Station) -> int:
    packet.length += 1  # the number of the port goes with the packet, behind its end
    packet[-1] = here.port
    return ixy.FORWARD


@ixy.kernel
def switch(packet: ixy.Packet, state: Switch) -> int:
    port, source, now = packet[-1], packet.eth.src, ixy.now()
    packet.length -= 1
    learned = -1 if source >> 40 & 1 else tables.find(state.stations, source, 0, now)  # no station is a group
    if learned >= 0:
        state.stations[learned].port = port
    place = tables.seek(state.stations, packet.eth.dst, 0, now, 300 * tables.SECOND)
    out = state.stations[place].port if place >= 0 else state.others[port]
    return out if out != port else ixy.DROP


def paths(devices: list[ixy.Device], ring: ixy.Ring) -> list[ixy.Path]:
    """One for each port, into a ring with as many producers, and one behind it; to be run in turn."""
    state, ports, found = Switch(), range(1, len(devices) + 1), []
    for port, device, tx in zip(ports, devices, ring.producers, strict=True):
        found.append(ixy.Path(device.rx[0], tx, enter, here := Station()))
        here.port, state.others[port] = port, ixy.copy_to(*(each for each in ports if each != port))
    return [*found, ixy.Path(ring.rx, [device.tx[0] for device in devices], switch, state)]


if __name__ == "__main__":
    with ExitStack() as stack:
        devices = [stack.enter_context(ixy.open(address)) for address in sys.argv[1:]]
        parts = paths(devices, stack.enter_context(ixy.Ring(producers=len(devices))))
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            for path in parts:
                path.run(16)
        print("sent to each port:", parts[-1].sent)
