"""When a run saves by its steps, and when by the clock."""

import time

import pytest

from mivolo_lite.training.save_schedule import SaveSchedule


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_by_steps_no_clock_is_asked(clock):
    schedule = SaveSchedule(3)
    clock[0] = 1e9
    assert [schedule.due(step) for step in (1, 2, 3, 6)] == [False, False, True, True] and not schedule.asks()


def test_by_minutes_it_asks_once_until_it_is_saved(clock):
    schedule = SaveSchedule("1.5min")
    assert not schedule.due(1000)
    asked = []
    for second in (0, 89, 90, 91, 500):
        clock[0] = second
        asked.append(schedule.asks())
    assert asked == [False, False, True, False, False]
    schedule.saved()
    clock[0] = 589
    assert not schedule.asks()
    clock[0] = 590
    assert schedule.asks()
