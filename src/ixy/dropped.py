"""What becomes of things that nobody refers to any more, and nobody has closed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


def close_dropped(close: Callable[[], object], _ending: Callable[[], bool] = sys.is_finalizing) -> None:
    """Close something in its `__del__`, where that means waiting for other threads.

    The collector may run in a thread for which closing waits, such as that of the simulated cards. So only the main
    thread, for which nothing waits, closes at once; others leave it to a new thread. When the interpreter ends, nothing
    is done.
    """
    if _ending():
        return
    if threading.current_thread() is threading.main_thread():
        close()
    else:
        threading.Thread(target=close, name="ixy-close").start()
