"""A frame with its headers by name."""

from __future__ import annotations

from ixy.headers import Headers


class Frame(Headers):
    """A packet's bytes, with headers by name."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> int:
        return self._data[index]
