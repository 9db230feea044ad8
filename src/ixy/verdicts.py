"""What a kernel says of a packet: an integer."""

from __future__ import annotations

DROP = 0
FORWARD = 1  # to the first output; n is output n
MAX_OUTPUTS = 60
NO_OUTPUT = 61  # stands for any number that is too large


class _Up(int):
    """A number that is known from others of its value."""


UP = _Up(62)  # to Python, see `Path.up`

OUTPUTS_MASK = (1 << 63) - 2  # of a verdict below 0: a bit for each output
SEVERAL = -(1 << 63)  # is added to them


def copy_to(*outputs: int) -> int:
    """The verdict that sends a packet to several outputs, `ixy.UP` among them: the packet to the last of them, and
    copies to the others. A copy for which there is no buffer is counted, see `Path.lost`.

    Two outputs of the same number are one, and 0 is none.
    """
    verdict = 0
    for output in outputs:
        verdict |= 1 << (output if 0 <= output <= UP else NO_OUTPUT)
    return SEVERAL | verdict & OUTPUTS_MASK
