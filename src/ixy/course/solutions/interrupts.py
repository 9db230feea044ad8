"""Extra: interrupts. The page is interrupts.md."""

from lab5 import RxRing, receive

from ixy.course import Bar, Interrupt

EICR = 0x00800  # 8.2.3.5.1
EIAC = 0x00810  # 8.2.3.5.5
EITR = 0x00820  # 8.2.3.5.12: that of vector 0
EIMS = 0x00880  # 8.2.3.5.3
GPIE = 0x00898  # 8.2.3.5.18
GPIE_MULTIPLE_MSIX = 1 << 4
GPIE_EIAME = 1 << 30
GPIE_PBA_SUPPORT = 1 << 31
IVAR = 0x00900  # 8.2.3.5.16: causes of queues 0 and 1, a byte each
IVAR_VALID = 1 << 7
EIAM_EX = 0x00AD0  # 8.2.3.5.10: 2 registers

YOURS = ("set_up", "receive_or_sleep")


def set_up(bar: Bar) -> None:
    """Let receive queue 0 cause vector 0; a message clears its cause, and masks it until somebody waits again."""
    bar.write32(IVAR, bar.read32(IVAR) & ~0xFF | IVAR_VALID | 0)
    bar.write32(EIAC, 1 << 0)
    bar.write32(EIAM_EX, 1 << 0)
    bar.write32(EITR, 0)
    bar.write32(GPIE, GPIE_MULTIPLE_MSIX | GPIE_EIAME | GPIE_PBA_SUPPORT)


def receive_or_sleep(ring: RxRing, interrupt: Interrupt, timeout: float) -> bytes | None:
    """The next packet; if there is none, the one that an interrupt tells of within `timeout` seconds, else None."""
    packet = receive(ring)
    if packet is not None:
        return packet
    ring.bar.write32(EIMS, 1 << 0)
    packet = receive(ring)  # one that came before the interrupt was on
    if packet is None and interrupt.wait(timeout):
        packet = receive(ring)
    return packet
