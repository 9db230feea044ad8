"""A copper PHY on the management bus of a simulated card."""

from __future__ import annotations

from recorded import RecordedCard

from ixy.registers import i82599 as reg

PORT = 5


class FakePhy:
    """A PHY at one port; elsewhere on the bus nobody answers, and it reads all ones.

    Attributes:
        memory: its registers, by device and number.
        lost: frames that asked while the bus belonged to somebody else.
    """

    def __init__(self, card: RecordedCard) -> None:
        self.memory: dict[tuple[int, int], int] = {(1, 2): 0x00A1, (1, 3): 0x9410, (7, 0): 0x2000, (30, 1): 0x8}
        self.lost = 0
        self._card = card
        self._address = self._data = 0
        card.written[reg.MSCA.offset] = self._frame
        card.written[reg.MSRWD.offset] = self._put
        card.replies[reg.MSRWD.offset] = lambda _: self._data

    def _put(self, value: int) -> None:
        self._data = value & 0xFFFF

    def _frame(self, value: int) -> None:
        """A frame by IEEE 802.3, clause 45.3: the address first, which a later frame reads or writes."""
        fields = reg.MSCA.decode(value)
        owners = self._card.card.read32(reg.SW_FW_SYNC.offset)
        self.lost += not owners & 1 << 1  # of the first port
        place = (fields["DEVICE"], self._address)
        if fields["OPCODE"] == 0:
            self._address = fields["ADDRESS"]
        elif fields["PORT"] != PORT:
            self._data = 0xFFFF0000
        elif fields["OPCODE"] == 3:
            self._data = self.memory.get(place, 0) << 16
        else:
            self.memory[place] = self._data & 0xFFFF
