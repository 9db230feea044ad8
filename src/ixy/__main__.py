"""`python -m ixy` is the command `ixy`, and what the command begins with."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command. While its modules are loaded, Ctrl-C ends it as it does later (`apps/signals.py`)."""
    signal.signal(signal.SIGINT, lambda number, _frame: os._exit(128 + number))
    from ixy.cli import main

    main()


if __name__ == "__main__":
    main()
