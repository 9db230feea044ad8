"""The clock frequency of one core, where the kernel lets it be set.

Source: Documentation/admin-guide/pm/cpufreq.rst of the Linux kernel.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ixy.errors import Error

SYSTEM = Path("/sys/devices/system/cpu")
_STEPS = 5  # between the lowest and the highest, where the kernel names no frequencies


class Frequency:
    """The frequency of a core.

    Args:
        core: its number.

    Raises:
        Error: the kernel does not know it, as in most virtual machines.
    """

    def __init__(self, core: int) -> None:
        self._core = core
        self._directory = SYSTEM / f"cpu{core}" / "cpufreq"
        if not self._directory.is_dir():
            raise Error(
                f"the kernel has no frequency of core {core} to set ({self._directory} is not there): load a cpufreq "
                "driver, or measure on a machine that is not virtual"
            )

    def available(self) -> list[int]:
        """Frequencies that can be set, in kHz, from low to high."""
        named = self._directory / "scaling_available_frequencies"
        if named.exists():
            return sorted(int(word) for word in named.read_text().split())
        low, high = self._read("cpuinfo_min_freq"), self._read("cpuinfo_max_freq")
        return sorted({low + (high - low) * step // _STEPS for step in range(_STEPS + 1)})

    @contextmanager
    def restored(self) -> Generator[None]:
        """Whatever is set within the block, the bounds are as before after it."""
        low, high = self._read("scaling_min_freq"), self._read("scaling_max_freq")
        try:
            yield
        finally:
            self._set_bounds(low, high)

    def set(self, frequency: int) -> None:
        """Let the core run at `frequency` kHz, and at no other.

        Raises:
            Error: the kernel refuses.
        """
        self._set_bounds(frequency, frequency)

    def _set_bounds(self, low: int, high: int) -> None:
        """The kernel refuses a lower bound above the upper one, so the order depends on what there was."""
        bounds = {"scaling_min_freq": low, "scaling_max_freq": high}
        rising = high >= self._read("scaling_max_freq")
        try:
            for name in sorted(bounds, reverse=not rising):
                (self._directory / name).write_text(str(bounds[name]))
        except OSError as error:
            raise Error(
                f"the frequency of core {self._core} cannot be set to {high} kHz: {error.strerror}; run as root"
            ) from None

    def _read(self, name: str) -> int:
        return int((self._directory / name).read_text())
