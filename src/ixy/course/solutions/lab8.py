"""Lab 8: statistics, the link, and your own forwarder. The page is lab8.md."""

from collections.abc import Callable

from lab3 import CTRL, CTRL_MASTER_DISABLE, STATUS, STATUS_MASTER_ENABLE, wait_for
from lab5 import RXCTRL, RXCTRL_RXEN, RXDCTL, RXDCTL_ENABLE
from lab6 import TXDCTL, TXDCTL_ENABLE
from lab7 import Nic, receive_batch, send_batch

from ixy.course import Bar

# 8.2.3.23: reading clears
GPRC = 0x04074
GPTC = 0x04080
GORCL, GORCH = 0x04088, 0x0408C
GOTCL, GOTCH = 0x04090, 0x04094
LINKS = 0x042A4  # 8.2.3.22.20
LINKS_UP = 1 << 30
LINKS_SPEED_SHIFT = 28  # 2 bits
SPEEDS = {1: 100, 2: 1_000, 3: 10_000}  # Mbit/s

BATCH = 16

YOURS = ("add_statistics", "link_speed", "forward", "stop")


def add_statistics(bar: Bar, totals: dict[str, int]) -> None:
    """Add what the card has counted since the last time: "rx_packets", "tx_packets", "rx_bytes", "tx_bytes"."""
    totals["rx_packets"] += bar.read32(GPRC)
    totals["tx_packets"] += bar.read32(GPTC)
    low = bar.read32(GORCL)
    totals["rx_bytes"] += bar.read32(GORCH) << 32 | low
    low = bar.read32(GOTCL)
    totals["tx_bytes"] += bar.read32(GOTCH) << 32 | low


def link_speed(bar: Bar) -> int:
    """The speed of the link in Mbit/s, 0 if there is none."""
    links = bar.read32(LINKS)
    return SPEEDS[links >> LINKS_SPEED_SHIFT & 3] if links & LINKS_UP else 0


def forward(first: Nic, second: Nic, more: Callable[[], bool]) -> None:
    """As long as there is `more()` to do, send what the first card receives through the second, and the other way.

    A packet for which there is no room is dropped; its buffer goes back.
    """
    while more():
        for source, target in ((first, second), (second, first)):
            packets = receive_batch(source.rx, BATCH)
            sent = send_batch(target.tx, packets)
            for buffer, _ in packets[sent:]:
                source.rx.pool.give(buffer)


def stop(nic: Nic) -> None:
    """Let the card do no more DMA, so that its memory can be used for something else."""
    bar = nic.bar
    bar.write32(RXCTRL, bar.read32(RXCTRL) & ~RXCTRL_RXEN)
    for control, enable in ((RXDCTL, RXDCTL_ENABLE), (TXDCTL, TXDCTL_ENABLE)):
        bar.write32(control, bar.read32(control) & ~enable)
        wait_for(bar, control, enable, 0)
    bar.write32(CTRL, bar.read32(CTRL) | CTRL_MASTER_DISABLE)
    wait_for(bar, STATUS, STATUS_MASTER_ENABLE, 0)
