"""Programs in turns on a veth pair, each started several times: packets per second of each, and how they compare.

On the first core the program under test does what it can, on the last one is the far end. Each start has a pair of its
own. What a program sends, the far end's interface counts. Of what it is sent, it says itself which share it has
received, or the file tells that it writes; it is asked before and after, since an answer takes time from both ends.

Starts of programs that use AF_XDP fall into two groups, a fast one and one a third slower, whichever program it is. So
rates are compared within a group: of both, the starts that are near their best, and the others.

python -m ixy.bench.contest TASK     in the namespace of `veth.started_there`: an object a line
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ixy.bench import veth
from ixy.bench.contenders import CAPTURE, DRIVERS, RECORDED, TOOLS, Contender, Job, Running
from ixy.bench.rates import on_core
from ixy.bench.slices import rates
from ixy.bench.works import FORWARD, FRAME_BYTES, RECEIVE
from ixy.errors import Error
from ixy.formats.frames import udp_frame
from ixy.formats.writing import Writer

SECONDS = 1.0  # that a start is measured
_SETTLE = 0.2  # seconds that a program gets to come into its stride
_PATIENCE = 120.0  # seconds that a program gets to begin: it may compile first
_FIRST = -20  # a priority, as nice(2) has it
_RECORDED = 1000  # packets of the file that is replayed
_NEAR_BEST = 1.15  # a start that is slower than the best by more is of the slow group

_MOSTLY = 0.8  # of the slices: if fewer were calm, it is said

FIELDS = {"drivers": DRIVERS, "tools": TOOLS}


class Task(NamedTuple):
    """What is to be measured.

    Attributes:
        field: the contenders, one of `FIELDS`.
        starts: of each.
        works: only these kinds of work; empty for all.
        batches: of those that can be told.
        seconds: that each start is measured.
    """

    field: str
    starts: int
    works: tuple[str, ...] = ()
    batches: tuple[int, ...] = (32,)
    seconds: float = SECONDS


def measure(task: Task) -> Iterator[dict[str, Any]]:
    """All that is to be measured: objects of what is missing, and then a row for each contender, work and batch. Each
    start is told on standard error. After an interrupt there are rows of what was measured until then.

    Raises:
        Error: as `veth.started_there`.
    """
    found: list[dict[str, Any]] = []
    try:
        for each in veth.started_there(__name__, task._asdict()):
            if "missing" in each:
                yield each
                continue
            said = "{left}: {work}, {how}: {contender} {mpps:.3f} Mpps".format(**each, how=_batch(each["batch"]))
            print(said, file=sys.stderr)
            found.append(each)
    except KeyboardInterrupt:
        yield from rows(found)
        raise
    yield from rows(found)


def rows(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the starts of each contender have in common, in the order in which they came."""
    starts: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for each in found:
        starts.setdefault((each["work"], each["batch"], each["contender"]), []).append(each)
    return [_row(*key, starts) for key in starts]


def _row(work: str, batch: int, name: str, starts: dict[tuple[str, int, str], list[dict[str, Any]]]) -> dict[str, Any]:
    mine = starts[work, batch, name]
    speeds = [each["mpps"] for each in mine]
    row: dict[str, Any] = {"work": work, "batch": batch or None, "contender": name, "mpps": _spread(speeds)}
    row |= {"starts": speeds, "calm": round(statistics.mean(each["calm"] for each in mine), 3)}
    row |= dict(zip(("fast", "slow"), map(_spread, _groups(speeds)), strict=True))
    if shares := [each["share"] for each in mine if each["share"] is not None]:
        row["share"] = round(statistics.median(shares), 4)
    rivals = next(each.rivals for each in (*DRIVERS, *TOOLS) if each.name == name)
    measured = {rival: [each["mpps"] for each in starts.get((work, batch, rival), [])] for rival in rivals}
    if any(measured.values()):
        rival, speeds_of_it = max(measured.items(), key=lambda item: statistics.median(item[1] or [0.0]))
        theirs = _groups(speeds_of_it)
        row["beside"] = {"rival": rival} | {
            group: round(statistics.median(one) / statistics.median(other), 3) if one and other else None
            for group, one, other in zip(("fast", "slow"), _groups(speeds), theirs, strict=True)
        }
    return row


def _groups(speeds: Sequence[float]) -> tuple[list[float], list[float]]:
    """Those near the best, and the others."""
    border = max(speeds) / _NEAR_BEST
    return [each for each in speeds if each >= border], [each for each in speeds if each < border]


def _spread(speeds: Sequence[float]) -> dict[str, float] | None:
    if not speeds:
        return None
    return {"median": round(statistics.median(speeds), 6), "min": min(speeds), "max": max(speeds), "of": len(speeds)}


def lines(results: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The same for people, a heading for each kind of work."""
    heading = ""
    for row in results:
        if "missing" in row:
            yield f"not measured: {row['missing']}: {row['why']}"
            continue
        if (found := f"{row['work']}, {_batch(row['batch'])}") != heading:
            heading = found
            yield f"{heading}: Mpps, median (range)"
        yield _line(row)


def _line(row: dict[str, Any]) -> str:
    said = f"  {row['contender']:24} " + "{median:8.4g} ({min:.4g}–{max:.4g})".format(**row["mpps"])
    if row["slow"]:
        said += "".join(f", {name} {row[name]['median']:.4g} × {row[name]['of']}" for name in ("fast", "slow"))
    if "share" in row:
        said += f", {row['share']:.1%} of what came"
    if beside := row.get("beside"):
        ratios = [f"{beside[name]:.2f} ({name})" for name in ("fast", "slow") if beside[name]]
        said += f", {' and '.join(ratios) or 'no group in common'} × {beside['rival']}"
    return said if row["calm"] > _MOSTLY else f"{said}, disturbed: {row['calm']:.0%} calm"


def _batch(batch: int | None) -> str:
    return f"batch {batch}" if batch else "batches of their own"


# ---------------------------------------------------------------------------------------------------------------------
# In the namespace


def main(task: Task) -> None:
    """Measure, and print an object a line: what is missing, and each start."""
    veth.settle_in()
    _record()
    contenders: list[Contender] = []
    for each in FIELDS[task.field]:
        if why := each.missing():
            _print({"missing": each.name, "why": why})
        else:
            contenders.append(each)
    jobs = list(_jobs(task, contenders))
    allowed = sorted(os.sched_getaffinity(0))
    for start in range(task.starts):
        for number, (contender, work, batch) in enumerate(list(jobs)):
            try:
                speed = _measured(contender, Job(work, batch, (allowed[0], allowed[-1])), task.seconds)
            except Error as error:
                _print({"missing": f"{contender.name}, {work}", "why": str(error)})
                jobs.remove((contender, work, batch))
                continue
            left = f"start {start + 1} of {task.starts}, {number + 1} of {len(jobs)}"
            _print({"left": left, "contender": contender.name, "work": work, "batch": batch, **speed})


def _jobs(task: Task, contenders: Sequence[Contender]) -> Iterator[tuple[Contender, str, int]]:
    works = list(dict.fromkeys(work for each in contenders for work in each.works))
    for work in task.works or works:
        for batch, contender in product((*task.batches, 0), contenders):
            if work in contender.works and contender.batches == (batch > 0):
                yield contender, work, batch


def _record() -> None:
    """The file that is replayed."""
    zeros, frame = np.zeros(_RECORDED, np.int64), np.frombuffer(udp_frame(FRAME_BYTES), np.uint8)
    with Writer(RECORDED) as file:
        file.write(np.arange(_RECORDED) * 1000, frame, zeros, zeros + frame.size)


def _measured(contender: Contender, job: Job, seconds: float) -> dict[str, Any]:
    """One start: packets per second, which share that is of what was sent to it, and how many slices were calm.

    Raises:
        Error: it does not begin, or has ended, or counts more packets than there were.
    """
    receives = job.work in (RECEIVE, CAPTURE)
    with veth.pair(), veth.FarEnd() as far, contender.start(job) as running:
        _await(running, running.ready, "it does not begin")
        count = running.received if receives else lambda: far.arrived
        with far.sending() if receives or job.work == FORWARD else nullcontext():
            first = count()
            _await(running, lambda: count() > first, "no packet comes")
            threads = [f"{running.pid}/task/*", *([f"self/task/{far.thread}"] if far.thread else [])]
            with on_core(-1), _favoured(threads):
                time.sleep(_SETTLE)
                before = count(), far.sent
                found = rates(lambda: far.sent if receives else far.arrived, threads, seconds)
                after = count(), far.sent
        if far.sent and after[0] > far.sent:
            raise Error(f"of {far.sent} packets that were sent to it, {after[0]} are counted")
    share = min((after[0] - before[0]) / max(after[1] - before[1], 1), 1.0) if receives else None
    return {
        "mpps": round(found.rate * (1.0 if share is None else share) / 1e6, 6),
        "share": share,
        "calm": found.calm / found.slices,
    }


@contextmanager
def _favoured(threads: Sequence[str]) -> Generator[None]:
    """The programs, and who measures them, come before all others for the moment; the programs are ended soon."""
    for place in (path for pattern in threads for path in Path("/proc").glob(pattern)):
        with suppress(OSError):  # the thread has just ended
            os.setpriority(os.PRIO_PROCESS, int(place.name), _FIRST)
    mine, usual = threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, mine, _FIRST)
        _favour_session(_FIRST)
        yield
    finally:
        _favour_session(usual)
        os.setpriority(os.PRIO_PROCESS, mine, usual)


def _favour_session(priority: int) -> None:
    """Set how this session stands to others, where the kernel divides cores among sessions first (sched(7), autogroup):
    all that is measured is of this one."""
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(priority))


def _await(running: Running, condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not (running.ready() and condition()):
        if time.monotonic() > deadline:
            raise Error(otherwise)
        time.sleep(0.01)


def _print(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Task(**json.loads(sys.argv[1])))
