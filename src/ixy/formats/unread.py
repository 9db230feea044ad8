"""A file that is read from the front on, of which more may come."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Unread:
    """What readers of both formats know of the file.

    Attributes:
        data: the part of it that is at hand.
    """

    data: NDArray[np.uint8]
    _end = 0  # of what was read, in `data`
    _gone = 0  # bytes of the file before `data`

    @property
    def rest(self) -> NDArray[np.uint8]:
        """What was not read."""
        return self.data[self._end :]

    def go_on(self, data: NDArray[np.uint8]) -> None:
        """Read on in `data`, which is `rest` and what follows it in the file."""
        self._gone += self._end
        self.data, self._end = data, 0
