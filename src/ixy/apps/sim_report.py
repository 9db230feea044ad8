"""`ixy sim report`: what the drivers of simulated cards did, asked of the `ixy sim qemu` that runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from ixy.errors import Error
from ixy.sim.checklist import text
from ixy.sim.qemu.reporting import ask
from ixy.sim.spec import function_of


def print_reports(names: Sequence[str], *, as_json: bool) -> None:
    """Print the reports of these cards, or of all; in JSON an array.

    Raises:
        Error: there is no such card, or nothing runs that has one.
    """
    reports = ask()
    if not reports:
        raise Error("no `ixy sim qemu` of this user is running: start one, then ask")
    known = [report["card"] for report in reports]
    wanted = [function_of(name.removeprefix("sim:"))[0] for name in names]
    for name in wanted:
        if name not in known:
            raise Error(f"sim:{name}: no such card is in a running `ixy sim qemu`; there are: {', '.join(known)}")
    show([report for report in reports if not wanted or report["card"] in wanted], as_json=as_json, stream=sys.stdout)


def show(reports: Sequence[dict[str, Any]], *, as_json: bool, stream: Any) -> None:
    """Print reports, what `Report.as_dict` gives."""
    if as_json:
        print(json.dumps(reports, indent=2), file=stream, flush=True)
    else:
        print("\n\n".join(map(text, reports)), file=stream, flush=True)
