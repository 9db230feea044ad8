"""Latency from wire to wire, at shares of what the path can carry."""

from __future__ import annotations

from collections.abc import Iterator

from ixy.bench import latency
from ixy.bench.latency import PERCENTILES, Passage
from ixy.evaluate import published
from ixy.evaluate.effort import Effort
from ixy.evaluate.machine import need_cores
from ixy.reporting.parts import Chart, Part, Table, of
from ixy.reporting.progress import Told

TITLE = "Latency from wire to wire"

_BATCH = 32
_LOADS = (0.1, 0.5, 0.9)
_FASTEST = 2_000_000  # frames in a second's window when the path's own maximum is measured
_MOST = 4_000_000  # frames in one measurement
_HOW = (
    f"From the delivery of a frame to one simulated card until the other has sent it, {_BATCH} packets a batch, "
    "60-byte packets, the path on one core, both cards on another."
)


def seconds(effort: Effort) -> float:
    return 5 + effort.repeat * (len(_LOADS) + 1) * (effort.window + 0.7)


def measure(effort: Effort, told: Told) -> Iterator[Part]:
    need_cores(2)
    told(0, "the path's own maximum")
    frames = int(_FASTEST * effort.window)
    fastest = of([latency.measure(_BATCH, 0, frames).rate / 1e6 for _ in range(effort.repeat)])
    passages: dict[float, list[Passage]] = {}
    for number, load in enumerate(_LOADS, 1):
        told(number / (len(_LOADS) + 1), f"{load:.0%} of the path's maximum")
        rate = max(int(load * fastest.median * 1e6), 1)
        passages[load] = [
            latency.measure(_BATCH, rate, min(int(rate * effort.window) + 1, _MOST)) for _ in range(effort.repeat)
        ]
    yield Table(
        "latency_loads",
        "The path's load",
        ["load", "offered Mpps", "arrived Mpps", "lost frames"],
        [
            ["as fast as the card takes frames", None, fastest, None],
            *(
                [
                    f"{load:.0%}",
                    load * fastest.median,
                    of([passage.rate / 1e6 for passage in found]),
                    of([passage.lost for passage in found]),
                ]
                for load, found in passages.items()
            ),
        ],
        f"{_HOW} The first row is the path's own maximum, of which the loads are shares: it is that of the slower of "
        "path and cards.",
        effort.repeat,
    )
    yield _percentiles(passages, effort.repeat)
    if calm := _only_calm(passages):
        yield _calm_percentiles(calm, effort.repeat)


def _only_calm(passages: dict[float, list[Passage]]) -> dict[float, list[Passage]]:
    """The frames of calm slices, at the loads that had some each time."""
    calm = {load: [passage.only_calm() for passage in found] for load, found in passages.items()}
    return {load: [passage for passage in found if passage] for load, found in calm.items() if all(found)}


def _calm_percentiles(calm: dict[float, list[Passage]], repeats: int) -> Table:
    return Table(
        "latency_calm",
        "The same, in slices of a millisecond in which neither thread stood still",
        ["", *(f"{load:.0%} of the maximum" for load in calm)],
        [
            ["share of slices, %", *(of([100 * passage.calm_share for passage in found]) for found in calm.values())],
            *(
                [percentile, *(of([passage.percentiles()[percentile] for passage in found]) for found in calm.values())]
                for percentile in PERCENTILES
            ),
        ],
        "A tick of the system's clock, another program, or the hypervisor takes a core away for a while. What is left "
        "are the path's own latencies.",
        repeats,
    )


def _percentiles(passages: dict[float, list[Passage]], repeats: int) -> Table:
    ours = {load: [passage.percentiles() for passage in found] for load, found in passages.items()}
    theirs: dict[str, dict[str, float]] = {
        f"{name}, 1 Mpps": dict(zip(published.PERCENTILES, values, strict=True))
        for name, values in published.LATENCY.items()
    }
    return Table(
        "latency",
        "Latency that so many of the frames do not exceed, in µs",
        ["", *(f"{load:.0%} of the maximum" for load in ours), *theirs],
        [
            [
                percentile,
                *(of([found[percentile] for found in repetitions]) for repetitions in ours.values()),
                *(found.get(percentile) for found in theirs.values()),
            ]
            for percentile in PERCENTILES
        ],
        f"{_HOW} Another program that takes one of the two cores for a while is in the last percentiles. Beside it, as "
        "published, latencies between real cards, which PCI Express and the cards' own buffers lengthen: "
        f"{published.LANGUAGES}.",
        repeats,
        Chart("µs", logarithmic=True),
    )
