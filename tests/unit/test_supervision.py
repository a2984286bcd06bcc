"""When silence is said, and of whom."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from daskexec import ExecutorWarning
from daskexec._supervision import Supervision, say


class Clock:
    """Seconds that a test sets; two workers that give signs, or do not."""

    def __init__(self) -> None:
        self.now = 100.0
        self.stopped: set[str] = set()
        self.paused: set[str] = set()
        self.asked = 0
        self._seen = dict.fromkeys("ab", 100.0)

    def __call__(self) -> float:
        return self.now

    def workers(self) -> list[dict[str, Any]]:
        self.asked += 1
        for name in self._seen.keys() - self.stopped:
            self._seen[name] = self.now
        return [
            {
                "address": f"tcp://{name}:1",
                "name": name,
                "mute": self.now - at,
                "paused": name in self.paused,
            }
            for name, at in self._seen.items()
        ]


def _said(
    clock: Clock, sup: Supervision, seconds: int, waiting: bool = True, stopped_at: float = 0.0
) -> list[tuple[float, str]]:
    """Look every second for so long; return what is said, and when."""
    said = []
    began = clock.now
    for _ in range(seconds):
        clock.now += 1
        silent = clock.now - stopped_at if stopped_at else 0.0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sup.look(waiting, silent, "tcp://s:8786", clock.workers)
        said += [(clock.now - began, str(w.message)) for w in caught]
        assert all(w.category is ExecutorWarning for w in caught)
    return said


def test_a_silent_scheduler_is_said_at_growing_intervals() -> None:
    """After 5 s, then ever more rarely; its workers cannot be asked and are not."""
    clock = Clock()
    sup = Supervision(5, clock)
    said = _said(clock, sup, 60, stopped_at=clock.now)
    assert [when for when, _ in said] == [5, 10, 20, 40]
    assert all("the scheduler at tcp://s:8786 has not answered for" in text for _, text in said)
    assert clock.asked == 0


def test_a_silent_worker_is_named() -> None:
    """Among workers that give signs it is told by its name, address and time."""
    clock = Clock()
    clock.stopped = {"b"}
    said = _said(clock, Supervision(5, clock), 60)
    assert said
    assert len(said) < 6
    assert "worker b (tcp://b:1) has given no sign for" in said[0][1]
    assert "tcp://a" not in said[0][1]


def test_paused_workers_are_said() -> None:
    """If all of them are, since nothing begins then."""
    clock = Clock()
    clock.paused = {"a"}
    assert not _said(clock, Supervision(5, clock), 30)
    clock.paused = {"a", "b"}
    ((_, text), *_) = _said(clock, Supervision(5, clock), 30)
    assert "workers a (tcp://a:1), b (tcp://b:1) have paused" in text


@pytest.mark.parametrize("waiting", [True, False])
def test_a_long_call_is_no_trouble(waiting: bool) -> None:
    """While all give signs nothing is said, and they are asked at intervals only."""
    clock = Clock()
    assert not _said(clock, Supervision(5, clock), 60, waiting)
    assert clock.asked <= 12


def test_it_begins_anew_when_something_was_heard() -> None:
    """What has answered meanwhile is given the whole time again."""
    clock = Clock()
    sup = Supervision(5, clock)
    assert len(_said(clock, sup, 7, stopped_at=clock.now)) == 1
    sup.heard()
    assert not _said(clock, sup, 4, stopped_at=clock.now)


def test_warnings_that_are_errors_strike_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """With ``-W error`` the thread that warns goes on, and the words are logged."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say("no worker")
    assert caplog.messages == ["no worker"]


def test_a_mute_worker_is_said_though_others_answer() -> None:
    """At growing intervals, and from the beginning again when it had come back."""
    clock = Clock()
    sup = Supervision(clock=clock)
    said = []
    for second in [*range(50), *range(8)]:
        clock.now += 1
        sup.heard()
        mute = {"address": "tcp://a:1", "name": "a", "mute": float(second)}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sup.mute([mute] if second else [])
        said += [second for _ in caught]
        assert all("worker a (tcp://a:1) has given no sign" in str(w.message) for w in caught)
    assert said == [5, 10, 20, 40, 5]


def test_a_mute_worker_is_said_once_when_all_falls_silent() -> None:
    """What was said while others went on is not said again at once when they are done."""
    clock = Clock()
    sup = Supervision(clock=clock)
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for second in range(1, 26):
            clock.now += 1
            if second <= 12:
                sup.heard()
            a = {"address": "tcp://a:1", "name": "a", "mute": float(second), "paused": False}
            sup.mute([a])
            sup.look(True, 0.0, "tcp://s:8786", lambda a=a: [a])  # type: ignore[misc]
            said += [second] * (len(caught) - len(said))
    assert said == [5, 10, 22]  # from 20 on, when it is looked next
