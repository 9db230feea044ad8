"""The searches of RFC 2544, on devices of which it is known what they do: what they lose follows from a formula."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixy.apps.rate import parse_rate
from ixy.apps.rfc2544.back_to_back import BackToBack
from ixy.apps.rfc2544.frame_loss import FrameLoss
from ixy.apps.rfc2544.latency import Latency
from ixy.apps.rfc2544.throughput import Found, Throughput
from ixy.apps.rfc2544.trials import Attempt, Traffic, Trials
from ixy.apps.tester import Delays, StreamResult, Trial, TrialResult
from ixy.errors import ConfigurationError
from ixy.tables import histogram

pytestmark = pytest.mark.once

LINE_BITS = 10**10
LINE = 14_880_952  # packets of 64 bytes a second: 84 bytes each with preamble and gap
PARTS = histogram().count  # of a histogram
SECONDS = 2.0


def frames(size: int = 64, line_bits: int = LINE_BITS) -> Traffic:
    """Frames of so many bytes, with their check sequence."""
    return Traffic(str(size), 8 * (size + 20), line_bits)


def delays(nanoseconds: int, count: int) -> Delays:
    """So many packets that all took as long."""
    counters = np.zeros(PARTS, np.int64)
    return Delays(counters, nanoseconds, nanoseconds, nanoseconds * count, count)


def result(
    sent: int, lost: int, rate: float, *, corrupted: int = 0, behind: int = 0, latency: int = 1000
) -> TrialResult:
    """What a tester would have counted."""
    stream = StreamResult(
        "udp",
        "a → b",
        sent=sent,
        received=sent - lost,
        lost=lost,
        duplicated=0,
        reordered=0,
        max_extent=0,
        too_late=0,
        corrupted=corrupted,
        delays=delays(latency, sent - lost),
        jitters=delays(0, sent - lost),
        extents=np.zeros(PARTS, np.int64),
    )
    return TrialResult([stream], {}, sent / rate, {"a → b": rate}, behind)


class Device:
    """A tester with a device of which it is known what it loses.

    Args:
        loses: how many of so many packets, at so many a second.
        offers: the most packets a second that the tester can send.
    """

    def __init__(self, loses: Callable[[int, int], int], offers: int = LINE) -> None:
        self.loses, self.offers = loses, offers
        self.asked: list[int | None] = []

    def __call__(self, trial: Trial) -> TrialResult:
        asked = int(trial.rate.amount) if trial.rate else None
        self.asked.append(asked if trial.count is None else trial.count)
        rate = min(asked or self.offers, self.offers)
        sent = trial.count or round(rate * (trial.seconds or 0))
        return result(sent, self.loses(sent, rate), rate, behind=0 if rate == asked else 1_000_000)

    def trials(self, traffic: Traffic | None = None, after: Callable[[Attempt], None] = lambda _: None) -> Trials:
        return Trials(self, traffic or frames(), ways=1, seconds=SECONDS, resolution=0.001, after=after)


def forwards(most: int) -> Callable[[int, int], int]:
    """It loses what comes above so many packets a second."""
    return lambda sent, rate: max(sent - round(sent * most / rate), 0)


# ---------------------------------------------------------------------------------------------------------------------
# Throughput


def test_a_device_that_loses_nothing_has_the_throughput_of_the_line() -> None:
    """One trial shows it."""
    device = Device(lambda *_: 0)
    found = Throughput().measure(device.trials())
    assert (found.rate, found.limit, device.asked) == (LINE, "the line", [LINE])


def test_the_throughput_is_found_within_the_resolution() -> None:
    """Of 1 Mpps, to a thousandth of the line, by ten halvings of what lies between; it was offered without loss."""
    device = Device(forwards(1_000_000))
    found = Throughput(resolution=0.001).measure(device.trials())
    assert 1_000_000 - LINE // 1000 < found.rate <= 1_000_000
    assert found.limit == "loss above it"
    assert found.attempt is not None
    assert (found.attempt.lost, found.attempt.asked) == (0, found.rate)
    # by hand: the line, half of it, and so on, until half of 1/512 of the line is less than a thousandth of it
    assert device.asked[:6] == [LINE, 7_440_476, 3_720_238, 1_860_119, 930_059, 1_395_089]
    assert len(device.asked) == 1 + 10


def test_a_finer_resolution_finds_the_exact_rate() -> None:
    """Where half a packet a second would be the next step, that is the rate itself."""
    found = Throughput(resolution=1e-9).measure(Device(forwards(1_234_567)).trials())
    assert found.rate == 1_234_567


def test_a_device_that_always_loses_has_no_throughput() -> None:
    """A packet in each trial."""
    found = Throughput().measure(Device(lambda *_: 1).trials())
    assert (found.rate, found.attempt, found.limit) == (0, None, "loss at any rate")
    assert Throughput().failed([found])


def test_what_may_be_lost_is_lost() -> None:
    """A device that loses one packet in a thousand from 5 Mpps on, and all above 8 Mpps: with a tolerance of a
    thousandth it has 8 Mpps, without one 5 Mpps."""

    def loses(sent: int, rate: int) -> int:
        return sent if rate > 8_000_000 else sent // 1000 if rate > 5_000_000 else 0

    grain = LINE // 1000
    assert 5_000_000 - grain < Throughput().measure(Device(loses).trials()).rate <= 5_000_000
    assert 8_000_000 - grain < Throughput(tolerance=0.001).measure(Device(loses).trials()).rate <= 8_000_000


def test_a_packet_with_a_wrong_bit_is_lost() -> None:
    """It arrived, but is not what was to be forwarded."""
    attempt = Attempt(frames(), 1000, 1000, result(1000, 2, 1000.0, corrupted=3))
    assert (attempt.lost, attempt.loss) == (5, 0.005)


def test_what_was_not_offered_is_no_throughput() -> None:
    """A tester that sends 3 Mpps at most, and a device that forwards more: 3 Mpps, and it says who is the limit."""
    device = Device(forwards(10_000_000), offers=3_000_000)
    found = Throughput().measure(device.trials())
    assert (found.rate, found.limit) == (3_000_000, "the tester")
    assert device.asked == [LINE, LINE]  # once more, as something may have come between


def test_a_slow_tester_still_finds_a_slower_device() -> None:
    """3 Mpps can be offered, 2 Mpps are forwarded: it is searched below 3 Mpps."""
    device = Device(forwards(2_000_000), offers=3_000_000)
    found = Throughput().measure(device.trials())
    assert 2_000_000 - 3_000 <= found.rate <= 2_000_000
    assert found.limit == "loss above it"
    assert device.asked[:4] == [LINE, LINE, 1_500_000, 2_250_000]


def test_a_tester_that_falls_behind_on_the_way_says_no_more_than_it_knows() -> None:
    """It offers the line's rate at first, and then 2 Mpps only, to a device that forwards 5 Mpps."""
    device = Device(forwards(5_000_000))
    trials = device.trials(after=lambda _: setattr(device, "offers", 2_000_000))
    found = Throughput().measure(trials)
    assert (found.rate, found.limit) == (2_000_000, "the tester")


def test_without_a_line_the_search_begins_with_what_can_be_sent() -> None:
    """As between simulated cards without wire=: the first trial has no rate, the next half of what it reached."""
    device = Device(forwards(1_500_000), offers=4_000_000)
    found = Throughput().measure(device.trials(frames(line_bits=0)))
    assert device.asked[:3] == [None, 2_000_000, 1_000_000]
    assert 1_500_000 - 4_000 <= found.rate <= 1_500_000


@given(
    most=st.integers(0, 20_000_000),
    offers=st.integers(10_000, 20_000_000),
    size=st.sampled_from([64, 128, 1518]),
    resolution=st.sampled_from([0.1, 0.001, 0.00001]),
)
def test_the_throughput_is_the_least_of_line_device_and_tester(
    most: int, offers: int, size: int, resolution: float
) -> None:
    """To the resolution, and never above."""
    traffic = frames(size)
    trials = Trials(
        Device(lambda sent, rate: sent if rate > most else 0, offers), traffic, ways=1, seconds=60.0, resolution=1e-9
    )
    found = Throughput(resolution).measure(trials)
    line = 10**10 // (8 * (size + 20))
    bound = min(most, offers, line)
    assert bound - max(resolution * min(offers, line), 1) - 1 <= found.rate <= bound


@pytest.mark.parametrize("seed", range(20))
def test_noise_makes_it_less_and_never_more(seed: int) -> None:
    """Now and then a packet is lost below 5 Mpps as well: whatever is found was offered, and without loss."""
    chance = random.Random(seed)

    def loses(sent: int, rate: int) -> int:
        return forwards(5_000_000)(sent, rate) or int(chance.random() < 0.3)

    attempts: list[Attempt] = []
    found = Throughput().measure(Device(loses).trials(after=attempts.append))
    assert found.rate <= 5_000_000
    assert found.rate == max((attempt.reached for attempt in attempts if attempt.lost == 0), default=0)


# ---------------------------------------------------------------------------------------------------------------------
# Frame loss


def test_losses_by_load() -> None:
    """Of a device that forwards 10 Mpps, of 14.88 Mpps at 64 bytes: at 70 % of the line, 10.42 Mpps, it loses 4 %. At
    60 and 50 % nothing is lost, and that ends the test."""
    device = Device(forwards(10_000_000))
    losses = FrameLoss().measure(device.trials())
    assert device.asked == [LINE * load // 100 for load in (100, 90, 80, 70, 60, 50)]
    shares = [round(losses.at(load), 2) for load in losses.attempts]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert shares == [32.8, 25.33, 16.0, 4.0, 0, 0]
    assert losses.at(40) is None


def test_two_trials_in_a_row_without_loss_end_the_test() -> None:
    """One is not enough: here it is at 100 %, and then only from 60 % on."""
    device = Device(lambda sent, rate: sent // 2 if LINE * 0.65 < rate < LINE else 0)
    losses = FrameLoss().measure(device.trials())
    assert [losses.at(load) for load in losses.attempts] == [0, 50, 50, 50, 0, 0]


def test_a_load_that_was_not_offered_has_no_loss_rate() -> None:
    """3 Mpps, 20 % of the line, can be offered, and all arrive: nobody knows what would be lost of more."""
    losses = FrameLoss().measure(Device(forwards(10_000_000), offers=3_000_000).trials())
    assert set(losses.attempts) == {100, 90}
    assert [losses.at(load) for load in losses.attempts] == [None, None]


def test_steps_may_be_finer() -> None:
    """Of 4 %: 100, 96, 92, 88, 84."""
    losses = FrameLoss(step=4).measure(Device(lambda _, rate: int(rate > 0.9 * LINE)).trials())
    assert list(losses.attempts) == [100, 96, 92, 88, 84]


# ---------------------------------------------------------------------------------------------------------------------
# Back-to-back frames


def buffers(room: int, drains: float) -> Callable[[int, int], int]:
    """A device with room for so many packets, which forwards a share of the line meanwhile."""
    return lambda sent, _: max(0, int(sent * (1 - drains)) - room)


def test_the_longest_burst_that_finds_room() -> None:
    """Of a burst of n packets at the line's rate, n/2 are gone when the last comes: 2000 find room for 1000, and the
    2001st, with half a packet more, as well."""
    found = BackToBack(resolution=1e-6, repeat=2).measure(Device(buffers(1000, 0.5)).trials())
    assert found.lengths == [2001, 2001]
    assert found.limit == "loss above it"
    assert found.rate == LINE


def test_a_burst_is_found_within_the_resolution() -> None:
    """A thousandth of 20,000 packets are 20."""
    (length,) = BackToBack(resolution=0.001, repeat=1).measure(Device(buffers(20_000, 0)).trials()).lengths
    assert 20_000 - 20 <= length <= 20_000


def test_a_device_without_loss_takes_all_that_a_trial_has() -> None:
    """2 s of the line's packets; it is said that time was the limit."""
    device = Device(lambda *_: 0)
    found = BackToBack(repeat=3).measure(device.trials())
    assert found.lengths == [2 * LINE] * 3
    assert found.limit == "the trial's time"
    assert device.asked == [None]


def test_not_even_one_packet() -> None:
    """Which is a failure."""
    found = BackToBack(repeat=1).measure(Device(lambda sent, _: sent).trials())
    assert found.lengths == [0]
    assert BackToBack().failed([found])


def test_both_directions_count_for_themselves() -> None:
    """A burst of n is n packets each way: 2 s of the line's are not twice as many."""
    device = Device(lambda *_: 0)

    def run(trial: Trial) -> TrialResult:
        one = device(trial)
        return TrialResult([*one.streams, *one.streams], {}, one.seconds, one.rates, one.behind)

    trials = Trials(run, frames(), ways=2, seconds=SECONDS, resolution=0.001)
    assert BackToBack(repeat=1).measure(trials).lengths == [2 * LINE]


# ---------------------------------------------------------------------------------------------------------------------
# Latency


def test_latency_is_measured_at_shares_of_the_throughput() -> None:
    """4 Mpps are found within the resolution, then all of it, 90 and 10 %."""
    device = Device(forwards(4_000_000))
    latency = Latency(loads=(100, 90, 10))
    found = latency.measure(device.trials())
    assert found.found is not None
    rate = found.found.rate
    assert device.asked[-3:] == [rate, rate * 90 // 100, rate * 10 // 100]
    assert not latency.failed([found])


@pytest.mark.parametrize(("given", "pps"), [("1Mpps", 1_000_000), ("67.2Mbps", 100_000), ("10%", LINE // 10)])
def test_latency_at_a_rate_that_is_given(given: str, pps: int) -> None:
    """Nothing is looked for. 100,000 frames of 64 bytes take 67.2 Mbit."""
    device = Device(lambda *_: 0)
    found = Latency(rate=parse_rate("--rate", given), loads=(100, 50)).measure(device.trials())
    assert device.asked == [pps, pps // 2]
    assert found.found is None


def test_a_share_of_a_line_without_a_rate_is_refused() -> None:
    """It says what can be given."""
    trials = Device(lambda *_: 0).trials(frames(line_bits=0))
    with pytest.raises(ConfigurationError, match="the line has no rate of which 10% could be: say so many pps"):
        Latency(rate=parse_rate("--rate", "10%")).measure(trials)


def test_latency_of_a_device_without_throughput() -> None:
    """There is none, and the command fails."""
    found = Latency().measure(Device(lambda *_: 1).trials())
    assert found.attempts == {}
    assert Latency().failed([found])


# ---------------------------------------------------------------------------------------------------------------------
# What is shown


def found(most: int, size: int = 64) -> Found:
    return Throughput().measure(Device(forwards(most)).trials(frames(size)))


def test_the_table_of_throughputs_has_the_line_beside() -> None:
    """Exact packets a second, Mpps for the curves, and the share of the line."""
    (table,) = Throughput().parts([found(10**9), found(1, 64)])
    first, second = table.rows  # pyright: ignore[reportAttributeAccessIssue]
    assert list(first) == ["64", 14.880952, 14.880952, 14_880_952, 100.0, "the line"]
    assert list(second) == ["64", 0.0, 14.880952, 0, 0.0, "loss at any rate"]
