"""Virtual machines for tests: boot one, run commands in it, get their exit codes, output and files."""

from harness.machine import Guest, GuestDeathError, GuestTimeoutError, QemuCrashError, Result
from harness.packages import HarnessError

__all__ = ["Guest", "GuestDeathError", "GuestTimeoutError", "HarnessError", "QemuCrashError", "Result"]
