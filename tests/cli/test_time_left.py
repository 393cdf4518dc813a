"""The time left, on a clock of the test's own: what is foretold beside what comes to pass."""

from __future__ import annotations

import pytest

from gclip.text.time_left import WATCHED, TimeLeft


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told(left: TimeLeft, unknown: int = 0) -> float | None:
    found = left.left(unknown)
    if found is None:
        return None
    assert found.low == found.high
    return found.middle


def train(clock: Clock, left: TimeLeft, runs: dict[int, float], ticks: int = 10) -> None:
    """Runs side by side, each of which takes so many seconds; they begin and end together here."""
    longest = max(runs.values())
    for tick in range(1, ticks + 1):
        clock.now += longest / ticks
        for index in runs:
            left.advances(index, tick / ticks)


def test_nothing_is_said_before_training_was_watched() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    for _ in range(4):
        left.waits(("norm",))
    clock.now += 60  # imports, and trials of fleets
    assert told(left) is None
    left.starts(0, ("norm",))
    clock.now += 30  # the first of everything
    assert told(left) is None
    left.advances(0, 0.01)
    clock.now += WATCHED / 2
    left.advances(0, 0.2)
    assert told(left) is None, "too short a look"


def test_what_comes_before_the_first_run_is_not_training() -> None:
    """The case that foretold twenty minutes where half a minute was to come."""
    clock = Clock()
    left = TimeLeft(clock)
    for _ in range(10):
        left.waits(("norm",))
    clock.now += 60
    left.starts(0, ("norm",))
    clock.now += 30
    left.advances(0, 0.0)
    for share in (0.25, 0.5, 0.75):
        clock.now += 1
        left.advances(0, share)
    assert told(left) == pytest.approx(1 + 9 * 4)
    clock.now += 1
    left.advances(0, 1.0)
    left.ends(0)
    assert told(left) == pytest.approx(9 * 4)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_runs_side_by_side_are_counted_as_they_are(workers: int) -> None:
    clock = Clock()
    left = TimeLeft(clock)
    for _ in range(20):
        left.waits(("norm",))
    for index in range(workers):
        left.starts(index, ("norm",))
        left.advances(index, 0.0)
    train(clock, left, dict.fromkeys(range(workers), 10.0))
    for index in range(workers):
        left.ends(index)
    assert told(left) == pytest.approx((20 - workers) / workers * 10)


def test_a_fleet_that_tells_of_itself_at_an_epochs_end() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    for _ in range(16):
        left.waits(("norm",))
    for index in range(8):
        left.starts(index, ("norm",))
    clock.now += 4
    for index in range(8):
        left.advances(index, 0.2)
    clock.now += WATCHED
    for index in range(8):
        left.advances(index, 0.3)
    # 20 seconds a fleet: 14 are left of this one.
    assert told(left) == pytest.approx(14 + 20)


def test_what_strategies_cost_is_learned_by_name_and_what_is_unknown_gives_a_range() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    kinds = {"norm": 4.0, "spectral": 40.0, "value": 2.0}
    for name in ("norm", *kinds):
        left.waits((f"{name} lr 0.1", name))
    left.starts(0, ("norm lr 0.1", "norm"))
    left.advances(0, 0.0)
    train(clock, left, {0: kinds["norm"]})
    left.ends(0)
    rough = left.left()
    assert rough is not None
    assert rough.middle == pytest.approx(3 * 4.0)
    assert (rough.low, rough.high) == pytest.approx((6.0, 24.0))
    for index, name in enumerate(("spectral", "value"), start=1):
        left.starts(index, (f"{name} lr 0.1", name))
        left.advances(index, 0.0)
        train(clock, left, {index: kinds[name]})
        left.ends(index)
    assert told(left) == pytest.approx(4.0)
    left.waits(("spectral lr 0.3", "spectral"))  # another rate: like those of its name
    assert told(left) == pytest.approx(44.0)


def test_runs_nobody_told_of_yet_are_like_those_that_were() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    left.waits(("a", "agc"))
    left.starts(0, ("a", "agc"))
    left.advances(0, 0.0)
    train(clock, left, {0: 5.0})
    left.ends(0)
    assert told(left, unknown=3) == pytest.approx(15.0)


def test_the_slowest_run_under_way_is_waited_for() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    for index, name in enumerate(("fast", "slow")):
        left.waits((name,))
        left.starts(index, (name,))
        left.advances(index, 0.0)
    clock.now += 10
    left.advances(0, 1.0)
    left.advances(1, 0.1)
    left.ends(0)
    found = told(left)
    assert found is not None
    assert found >= 0.9 * 100


def test_a_run_whose_worker_died_waits_again() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    for _ in range(2):
        left.waits(("norm",))
    left.starts(0, ("norm",))
    left.advances(0, 0.0)
    train(clock, left, {0: 6.0})
    left.ends(0)
    assert told(left) == pytest.approx(6.0)
    left.starts(1, ("norm",))
    clock.now += 2
    left.ends(1, again=True)
    assert told(left) == pytest.approx(6.0)
