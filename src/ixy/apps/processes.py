"""`ixy ps`: the processes that have devices open and tell of them."""

from __future__ import annotations

import json
import sys

from ixy.telemetry.client import State, processes


def print_processes(*, as_json: bool) -> None:
    """Print the processes that serve telemetry, and what they have open; in JSON an array of objects."""
    found = processes()
    if as_json:
        told = [
            {
                "pid": each.number,
                "state": each.state.value,
                "devices": each.devices,
                "command": each.command,
                "socket": str(each.path),
            }
            for each in found
        ]
        print(json.dumps(told, indent=2), flush=True)
        return
    if not found:
        print("no process of ixy that serves telemetry; commands do while they run, programs by ixy.serve_telemetry()")
    for each in found:
        if each.state is State.DEAD:
            left = "" if each.path.parent.exists() else ", and what it left was removed"
            print(f"{each.number:>7}  dead{left}")
        else:
            silent = f"  {each.state.value}" if each.state is State.SILENT else ""
            devices = " ".join(each.devices.values()) or "no device"
            print(f"{each.number:>7}  {devices}{silent}  {each.command}")
    sys.stdout.flush()
