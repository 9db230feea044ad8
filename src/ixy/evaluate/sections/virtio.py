"""VirtIO: what a packet costs on both kinds of rings, and the rates beside DPDK's own driver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ixy.bench import virtio, virtio_peer
from ixy.errors import Error
from ixy.evaluate.effort import Effort
from ixy.evaluate.machine import need_cores
from ixy.reporting.environment import tick_unit
from ixy.reporting.parts import Missing, Part, Spread, Table, times
from ixy.reporting.progress import Told

TITLE = "VirtIO, and DPDK beside it"

_RINGS = tuple(virtio.RINGS)
_LOCK_STEP = 5.0  # seconds
_START = 8.0  # seconds that one start of a process and its back end takes, with all that is measured of it


def seconds(effort: Effort) -> float:
    return _LOCK_STEP + _comparisons(effort) * _START


def measure(effort: Effort, told: Told) -> Iterator[Part]:
    lock_step = _LOCK_STEP / seconds(effort)
    told(0, "VirtIO in lock step")
    rows = [
        [batch, *(_spread(virtio.lock_step(ring, batch, effort.repeat)) for ring in _RINGS)] for batch in virtio.BATCHES
    ]
    yield Table(
        "virtio_cost",
        f"What a packet costs on VirtIO by batch size, in {tick_unit()}",
        ["batch", *(f"{ring} ring" for ring in _RINGS)],
        rows,
        "Driver and a model of the device take turns on one core, and only the driver's turns count: receive, change "
        f"one byte, transmit, clean. {virtio.FRAME_BYTES}-byte packets, rings of {virtio.RING_SIZE} descriptors.",
        effort.repeat,
    )
    told(lock_step, "beside DPDK")
    try:
        need_cores(2)
        yield _beside_dpdk(effort, told, lock_step)
    except Error as reason:
        yield Missing("DPDK beside it", str(reason))


def _beside_dpdk(effort: Effort, told: Told, done: float) -> Table:
    rates: list[virtio_peer.Rate] = []
    expected = _comparisons(effort) * len(virtio_peer.WORKS) * len(virtio_peer.BATCHES)

    def report(rate: virtio_peer.Rate) -> None:
        rates.append(rate)
        told(done + (1 - done) * len(rates) / expected, f"{rate.contender}, {rate.ring} ring")

    results = virtio_peer.compare(effort.starts, _RINGS, report)["results"]
    contenders = list(dict.fromkeys(rate.contender for rate in rates))
    return Table(
        "virtio_beside_dpdk",
        "VirtIO driver beside DPDK's, in Mpps",
        ["ring", "work", "batch", *contenders, "ratio"],
        [
            [row["ring"], row["work"], row["batch"], *(_mpps(row.get(name)) for name in contenders), row["ratio"]]
            for row in results
        ],
        "Each driver in turn against DPDK's vhost back end, one core each. Both count what they receive, or send one "
        "prepared frame, or swap the addresses of each packet and send it back. The ratio is ours to DPDK's better "
        f"variant. Rates fall into groups from one process start to the next. {virtio_peer.FRAME_BYTES}-byte packets, "
        f"rings of {virtio_peer.RING_SIZE} descriptors.",
        effort.starts,
    )


def _comparisons(effort: Effort) -> int:
    """How many processes are started and measured."""
    return effort.starts * sum(len(virtio_peer.contenders("front", ring)) for ring in _RINGS)


def _spread(figure: dict[str, Any]) -> Spread:
    return Spread(figure["median"], figure["min"], figure["max"])


def _mpps(figure: dict[str, Any] | None) -> Spread | None:
    return None if figure is None else times(1e-6, _spread(figure))
