"""The copper PHY of a simulated X540, on the management bus: its registers are those of IEEE 802.3, clause 45.

It negotiates the fastest speed that it advertises and the wire has. Numbers of registers that are the vendor's, and of
its bits, are those that Linux's and DPDK's drivers use.
"""

from __future__ import annotations

from ixy.registers import i82599 as reg

PORT = 0  # its address on the bus
PMA, PCS, XS, NEGOTIATION, VENDOR = 1, 3, 4, 7, 30  # devices within it
_DEVICES = (PMA, PCS, XS, NEGOTIATION, VENDOR)

_CONTROL, _STATUS = 0, 1
_IDENTIFIER = 2, 3
_SPEEDS, _PRESENT, _STATUS_2, _ABILITIES = 4, (5, 6), 8, 11
_RESTART, _ENABLE, _EXTENDED = 1 << 9, 1 << 12, 1 << 13  # of NEGOTIATION's control
_DONE, _ABLE, _LINK, _PARTNER_ABLE = 1 << 5, 1 << 3, 1 << 2, 1 << 0  # of its status
_ADVERTISES = {  # of NEGOTIATION: register and bit, by the code of the speed in LINKS
    3: (0x20, 1 << 12),
    2: (0xC400, 1 << 15),
    1: (0x10, 1 << 8),
}
_LOW_POWER = 1 << 11  # of VENDOR's control
_FIRMWARE = 0x20  # of VENDOR
_NOBODY = 0xFFFF


class Phy:
    """The PHY of one card."""

    def __init__(self) -> None:
        present = sum(1 << device for device in _DEVICES)
        self._memory: dict[tuple[int, int], int] = {}
        for device in _DEVICES:
            self._memory |= {(device, half): present >> 16 * i & 0xFFFF for i, half in enumerate(_PRESENT)}
            self._memory[device, _STATUS_2] = 0x8000  # the device answers
        self._memory |= {(PMA, half): value for half, value in zip(_IDENTIFIER, (0x0154, 0x0200), strict=True)}
        self._memory[PMA, _SPEEDS] = 1 << 0 | 1 << 4 | 1 << 5  # 10 Gbit/s, 1 Gbit/s, 100 Mbit/s,
        self._memory[PMA, _ABILITIES] = 1 << 2 | 1 << 5 | 1 << 7  # each by its BASE-T
        self._memory[NEGOTIATION, _CONTROL] = _ENABLE | _EXTENDED
        self._memory |= {(NEGOTIATION, register): bit for register, bit in _ADVERTISES.values()}
        self._memory[VENDOR, _FIRMWARE] = 0x0216
        self._address = 0

    def speed(self, fastest: int) -> int:
        """The code in LINKS of the speed that is negotiated, on a wire that has this one at most; 0 if none is."""
        if self._memory.get((VENDOR, _CONTROL), 0) & _LOW_POWER:
            return 0
        advertised = [
            code for code, (register, bit) in _ADVERTISES.items() if self._memory[NEGOTIATION, register] & bit
        ]
        return max((code for code in advertised if code <= fastest), default=0)

    def transfer(self, command: int, data: int, linked: bool) -> tuple[int, bool]:
        """A frame on the bus (45.3): what is read, and whether the link restarts.

        Args:
            command: as it was written to MSCA.
            data: what is to be written.
            linked: whether there is a link.
        """
        fields = reg.MSCA.decode(command)
        if fields["PORT"] != PORT or fields["DEVICE"] not in _DEVICES:
            return _NOBODY, False
        place = fields["DEVICE"], self._address
        if fields["OPCODE"] == reg.MDI_ADDRESS:
            self._address = fields["ADDRESS"]
        elif fields["OPCODE"] == reg.MDI_WRITE:
            restarts = place == (NEGOTIATION, _CONTROL) and bool(data & _RESTART)
            self._memory[place] = data & ~_RESTART if restarts else data
            return 0, restarts or place == (VENDOR, _CONTROL)
        elif place == (NEGOTIATION, _STATUS):
            return (_DONE | _ABLE | _LINK | _PARTNER_ABLE) if linked else _ABLE, False
        return self._memory.get(place, 0), False
