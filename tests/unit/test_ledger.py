"""Where calls stand, without threads and without a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from daskexec._batching import BatchPolicy
from daskexec._board import Board
from daskexec._ledger import Ledger
from daskexec._messages import Started
from daskexec._tasks import (
    IN_HAND,
    OVER,
    PARKED,
    QUEUED,
    SENT,
    Call,
    Stretch,
    Task,
)
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions


def a_call(number: int = 0, fn: Any = abs, **options: Any) -> Call:
    future: DaskFuture[object] = DaskFuture("f", number)
    call = Call(future, fn, (number,), {}, CallOptions(**options))
    future._call = call
    return call


class AMap:
    """A map without an iterator: it keeps what its items came to."""

    name = "map"
    single = True

    def __init__(self, chunk: int | None = None) -> None:
        self.cancelled = False
        self.fn, self.options, self.chunk = abs, CallOptions(), chunk
        self.keys = 0
        self.found: dict[int, list[Any]] = {}

    def next_key(self) -> str:
        self.keys += 1
        return f"map-{self.keys}"

    def make_call(self, item: Any) -> Call:
        return a_call(item)

    def fill(self, first: int, run: list[Any], *, plain: bool = False) -> None:
        self.found[first] = run


def a_ledger(
    entries: Iterable[Call | Stretch] = (),
    *,
    threads: int = 100,
    known: float | None = None,
    **policy: Any,
) -> Ledger:
    """A ledger with these entries; `known` is the run time of ``abs``, if it ever ran."""
    ledger = Ledger(BatchPolicy(**policy))
    ledger.threads = threads
    if known is not None:
        ledger.policy.observe(ledger.policy.known(abs), known)
    for entry in entries:
        ledger.add(entry)
    return ledger


def calls_of(tasks: list[Task]) -> list[list[Call]]:
    return [list(task.calls) for task in tasks]


def send(ledger: Ledger, tasks: list[Task]) -> list[Task]:
    for task in tasks:
        ledger.send(task)
    return tasks


def settle(ledger: Ledger, task: Task) -> None:
    ledger.told(task, task.told, task.end - task.told)


def nothing_is_left(ledger: Ledger) -> bool:
    return (ledger.pending, ledger.queued, len(ledger.sent)) == (0, 0, 0)


# --- on the way to the scheduler ------------------------------------------------------------


def test_first_come_first_served_within_a_priority() -> None:
    """Calls are taken by priority, then in the order in which they came."""
    calls = [a_call(0), a_call(1, priority=5), a_call(2), a_call(3, priority=5)]
    ledger = a_ledger(calls, limit=3)
    tasks = ledger.take()
    assert calls_of(tasks) == [[calls[1]], [calls[3]], [calls[0]]]
    assert ledger.take() == []
    settle(ledger, send(ledger, tasks)[0])
    assert calls_of(ledger.take()) == [[calls[2]]]


def test_known_calls_share_a_task() -> None:
    """Calls of a function that is known to be quick go together, in their order."""
    calls = [a_call(n) for n in range(1000)]
    ledger = a_ledger(calls, threads=2, known=1e-3)
    tasks = ledger.take()
    assert [call for task in tasks for call in task.calls] == calls[: 1000 - ledger.queued]
    assert len(tasks[0].calls) > 10
    assert {call.stage for call in tasks[0].calls} == {IN_HAND}


def test_different_functions_share_a_task() -> None:
    """Quick calls of several functions go together; a run time is kept for each."""
    calls = [a_call(n, fn=(abs, round)[n % 2]) for n in range(100)]
    ledger = a_ledger(calls, threads=1, known=1e-4)
    ledger.policy.observe(ledger.policy.known(round), 2e-4)
    first, *_ = ledger.take()
    assert first.mixed
    assert {call.function for call in first.calls} == {
        ledger.policy.known(abs),
        ledger.policy.known(round),
    }


def test_a_mixed_task_is_expected_to_take_what_its_functions_take() -> None:
    """One long call ahead of many short ones does not fill the window as many long ones."""
    calls = [a_call(0, fn=round), *(a_call(n) for n in range(1, 100))]
    ledger = a_ledger(calls, threads=1, known=1e-5)
    ledger.policy.observe(ledger.policy.known(round), 0.02)
    task, *_ = ledger.take()
    shorts = len(task.calls) - 1
    assert shorts > 10
    assert task.seconds == pytest.approx(0.02 + shorts * 1e-5)


def test_what_is_put_back_is_not_expected() -> None:
    """Calls that were too much for a task do not count in the window."""
    ledger = a_ledger([a_call(n) for n in range(100)], threads=1, known=1e-3, limit=1)
    (task,) = ledger.take()
    ledger.put_back(task, 1)
    assert task.seconds == pytest.approx(1e-3)
    assert ledger._seconds == pytest.approx(1e-3)


def test_few_tasks_are_taken_at_once() -> None:
    """The first results of a new function may change what becomes of the rest of a backlog."""
    calls = [a_call(n) for n in range(10_000)]
    ledger = a_ledger(calls, threads=4000)
    first = ledger.take()
    assert len(first) == Ledger.AT_ONCE
    ledger.policy.observe(ledger.policy.known(abs), 1e-4)
    assert len(ledger.take()[0].calls) > 1


def test_the_unknown_are_not_taken_along() -> None:
    """A call of which nothing is known does not share the task of known ones."""
    calls = [a_call(0), a_call(1, fn=round), a_call(2)]
    ledger = a_ledger(calls, threads=1, known=1e-4)
    assert calls_of(ledger.take()) == [[calls[0]], [calls[1]]]


@pytest.mark.parametrize("options", [{"retries": 1}, {"resources": {"A": 1}}, {"workers": ["w"]}])
def test_calls_with_wishes_go_alone(options: dict[str, Any]) -> None:
    """A call that Dask is told something about of its own shares no task."""
    wishing = a_call(1, **options)
    calls = [a_call(0), wishing, a_call(2)]
    ledger = a_ledger(calls, threads=1, known=1e-4, limit=9)
    assert [wishing] in calls_of(ledger.take())


def test_cancelled_ones_leave_no_gap() -> None:
    """Calls cancelled in the queue are passed over, however many there are."""
    calls = [a_call(n) for n in range(100)]
    ledger = a_ledger(calls, threads=1)
    for call in calls[:99]:
        assert ledger.forget_unsent(call)
    assert calls_of(ledger.take()) == [[calls[99]]]


def test_cancelled_alone_leave_nothing_pending() -> None:
    """When all that was queued is cancelled, nothing is pending any more."""
    call = a_call()
    ledger = a_ledger([call])
    ledger.forget_unsent(call)
    assert ledger.take() == []
    assert nothing_is_left(ledger)


def test_sent_calls_cannot_be_dropped_at_once() -> None:
    """What is with the scheduler is not for the client alone to cancel."""
    call = a_call()
    ledger = a_ledger([call])
    send(ledger, ledger.take())
    assert not ledger.forget_unsent(call)
    assert call.stage == SENT


def test_cancelled_in_hand_is_not_sent() -> None:
    """A call cancelled while it is being pickled is put down for good."""
    call = a_call()
    ledger = a_ledger([call])
    (task,) = ledger.take()
    assert ledger.forget_unsent(call)
    ledger.send(task)
    assert task.end == 0
    assert nothing_is_left(ledger)


def test_cancelled_in_hand_spares_its_company() -> None:
    """Of a shared task those calls are sent that were not cancelled meanwhile."""
    calls = [a_call(n) for n in range(8)]
    ledger = a_ledger(calls, threads=1, known=1e-4)
    task, *_ = ledger.take()
    taken = list(task.calls)
    ledger.forget_unsent(taken[0])
    ledger.send(task)
    assert task.calls == taken[1:]


def test_what_is_too_much_for_a_task_goes_first_next_time() -> None:
    """Calls put back from a task in hand are taken again before all others."""
    calls = [a_call(n) for n in range(40)]
    ledger = a_ledger(calls, threads=1, known=1e-4, limit=1)
    (task,) = ledger.take()
    taken = list(task.calls)
    ledger.put_back(task, 1)
    send(ledger, [task])
    settle(ledger, task)
    assert ledger.take()[0].calls[0] is taken[1]


def test_parked_calls_wait_for_nobody_else() -> None:
    """A call held back is not pending room; let go, it is taken before all others."""
    calls = [a_call(n) for n in range(3)]
    ledger = a_ledger(calls, limit=1)
    (task,) = ledger.take()
    assert ledger.park(calls[0])
    ledger.put_down(task)
    assert calls[0].stage == PARKED
    (task,) = ledger.take()
    assert task.calls == [calls[1]]
    settle(ledger, send(ledger, [task])[0])
    ledger.unpark(calls[0])
    assert calls_of(ledger.take()) == [[calls[0]]]


def test_a_parked_call_can_be_cancelled() -> None:
    """A call that was cancelled while it was held back stays over."""
    call = a_call()
    ledger = a_ledger([call])
    (task,) = ledger.take()
    ledger.park(call)
    ledger.put_down(task)
    assert ledger.forget_unsent(call)
    ledger.unpark(call)
    assert ledger.take() == []
    assert not ledger.park(call)
    assert nothing_is_left(ledger)


def test_hurrying_needs_no_room() -> None:
    """A call that hurries is taken though the window is full, alone and just once."""
    calls = [a_call(n) for n in range(5)]
    ledger = a_ledger(calls, limit=2)
    ahead = ledger.take()
    assert calls_of(ahead) == [[calls[0]], [calls[1]]]
    ledger.hurry(calls[4])
    ledger.hurry(calls[4])
    hurried = ledger.take()
    assert calls_of(hurried) == [[calls[4]]]
    for task in send(ledger, ahead + hurried):
        settle(ledger, task)
    assert calls_of(ledger.take()) == [[calls[2]], [calls[3]]]


# --- on the way back ------------------------------------------------------------------------


def test_results_are_told_in_order_and_once() -> None:
    """What a task tells of twice, as a slow one does, is news only once."""
    calls = [a_call(n) for n in range(8)]
    ledger = a_ledger(calls, threads=1, known=1e-4, limit=1)
    (task,) = send(ledger, ledger.take())
    members = len(task.load)
    assert members > 2
    assert ledger.told(task, 0, 2) == (0, 2)
    assert ledger.told(task, 0, members) == (2, members)
    assert ledger.told(task, 0, members) == (0, 0)
    assert task.key not in ledger.sent


def test_another_attempt_has_a_key_of_its_own() -> None:
    """An attempt is told from the one before it, and goes ahead of all others."""
    call, other = a_call(1), a_call(2)
    ledger = a_ledger([call])
    (task,) = send(ledger, ledger.take())
    first = task.key
    ledger.add(other)
    ledger.again(task)
    assert first not in ledger.sent
    tasks = send(ledger, ledger.take())
    assert calls_of(tasks) == [[call], [other]]
    assert tasks[0].key not in (first, call.future.key)


def test_what_was_handed_back_goes_first() -> None:
    """Calls behind a slow one are queued again; those begun stay with their task."""
    calls = [a_call(n) for n in range(64)]
    ledger = a_ledger(calls, threads=1, known=1e-4, limit=1)
    (task,) = send(ledger, ledger.take())
    rest = task.calls[2:]
    ledger.again(task, begun=2)
    assert task.calls == calls[:2]
    assert {call.stage for call in rest} == {QUEUED}
    assert task.key in ledger.sent
    settle(ledger, task)
    assert ledger.take()[0].calls[0] is rest[0]


def test_calls_are_handed_back_once() -> None:
    """A worker that is relieved again, and has nothing left to give, takes nothing back."""
    calls = [a_call(n) for n in range(64)]
    ledger = a_ledger(calls, threads=1, known=1e-4, limit=1)
    (task,) = send(ledger, ledger.take())
    members = len(task.load)
    ledger.again(task, begun=2)
    queued = ledger.queued
    ledger.again(task, begun=members)
    assert task.calls == calls[:2]
    settle(ledger, task)
    assert (ledger.queued, ledger.pending) == (queued, 62)


def test_other_attempts_go_ahead_of_the_window_the_oldest_first() -> None:
    """What was handed back passes all that was sent since, in the order of first attempts."""
    calls = [a_call(n) for n in range(200)]
    ledger = a_ledger(calls, threads=2, known=1e-4)
    tasks = send(ledger, ledger.take())
    assert [task.ahead for task in tasks] == [0.0] * len(tasks)
    ledger.again(tasks[1])
    ledger.again(tasks[0])
    again = [task for task in send(ledger, ledger.take()) if task.ahead]
    ranks = {task.load[0].future._number: task.ahead for task in again}
    firsts = sorted(ranks)
    assert [ranks[n] for n in firsts] == sorted(ranks.values(), reverse=True)
    assert all(0 < rank < 1 for rank in ranks.values())


def test_what_was_handed_back_needs_no_room() -> None:
    """A full window holds back new calls, not those that it had before; the limit holds both."""
    calls = [a_call(n) for n in range(400)]
    ledger = a_ledger(calls, threads=1, known=5e-3, ahead=0.2)
    while tasks := ledger.take():
        send(ledger, tasks)
    first = next(iter(ledger.sent.values()))
    rest = first.calls[1:]
    ledger.again(first, begun=1)
    assert rest
    assert [call for task in ledger.take() for call in task.calls] == rest
    limited = a_ledger([a_call(n) for n in range(40)], threads=1, known=1e-3, limit=1)
    (task,) = send(limited, limited.take())
    limited.again(task, begun=1)
    assert limited.take() == []


def test_a_lost_task_is_tried_again_call_by_call() -> None:
    """The company of a crash is tried again alone, since one of it may be the killer."""
    calls = [a_call(n) for n in range(8)]
    ledger = a_ledger(calls, threads=1, known=1e-4, limit=9)
    tasks = send(ledger, ledger.take())
    ledger.again(tasks[0], alone=True)
    again = ledger.take()
    members = len(tasks[0].load)
    assert calls_of(again)[:members] == [[call] for call in calls[:members]]


def test_suspects_go_one_at_a_time() -> None:
    """Calls that were there when workers died are tried again one after the other."""
    calls = [a_call(n) for n in range(3)]
    ledger = a_ledger(calls)
    for task in send(ledger, ledger.take()):
        task.calls[0].suspect = True
        ledger.again(task)
    (task,) = ledger.take()
    assert task.calls == [calls[0]]
    send(ledger, [task])
    assert ledger.take() == []
    settle(ledger, task)
    assert calls_of(ledger.take()) == [[calls[1]]]


def test_withdrawn_calls_that_are_wanted_are_queued_again() -> None:
    """Cancelling one call of a task that no worker will run spares its company."""
    calls = [a_call(n) for n in range(8)]
    ledger = a_ledger(calls, threads=1, known=1e-4, limit=1)
    (task,) = send(ledger, ledger.take())
    wanted = task.calls[1:]
    calls[0].wanted = False
    assert ledger.withdrawn(task) == [calls[0]]
    assert calls[0].stage == OVER
    assert {call.stage for call in wanted} == {QUEUED}
    assert ledger.take()[0].calls[0] is wanted[0]


def test_worn_worker_is_replaced_when_it_owes_nothing() -> None:
    """A worn process is named once, when all tasks that it began are over."""
    ledger = a_ledger([a_call(n) for n in range(2)])
    tasks = send(ledger, ledger.take())
    for task in tasks:
        ledger.started(Started(task.key, "tcp://w", "0", 77, worn=task is tasks[1]))
    settle(ledger, tasks[0])
    assert ledger.worn_out() == []
    settle(ledger, tasks[1])
    assert ledger.worn_out() == [77]
    assert ledger.worn_out() == []


def test_slots_of_the_board_come_back(tmp_path: Path) -> None:
    """A task holds its slot from when it is sent until it is over, and no longer."""
    ledger = a_ledger([a_call()])
    ledger.board = board = Board(tmp_path / "board", create=True)
    (task,) = ledger.take()
    turn = ledger.send(task)
    slot = task.slot
    assert board.has_turn(slot, turn)
    settle(ledger, task)
    assert task.slot == -1
    assert not board.has_turn(slot, turn)
    board.close()


def test_the_window_is_empty_when_all_is_over() -> None:
    """However tasks end, none is counted in the window afterwards."""
    calls = [a_call(n) for n in range(100)]
    ledger = a_ledger(calls, threads=3, known=1e-3)
    rounds = 0
    while ledger.pending:
        rounds += 1
        for number, task in enumerate(send(ledger, ledger.take())):
            if number % 3 == 0:
                settle(ledger, task)
            elif number % 3 == 1:
                ledger.again(task, begun=1)
                settle(ledger, task)
            elif rounds < 3:
                ledger.withdrawn(task)
            else:
                settle(ledger, task)
    assert nothing_is_left(ledger)
    assert (ledger._in_hand, ledger._seconds) == (0, 0.0)


# --- ends ---------------------------------------------------------------------------------


def test_dropping_spares_the_first() -> None:
    """A shutdown that cancels spares as many as would be running by now."""
    calls = [a_call(n) for n in range(10)]
    ledger = a_ledger(calls)
    assert ledger.drop_unsent(spare=2) == (calls[2:], [])
    assert [call.stage for call in calls] == [QUEUED] * 2 + [OVER] * 8
    assert calls_of(ledger.take()) == [[calls[0]], [calls[1]]]


def test_dropping_spares_the_first_items_of_a_map() -> None:
    """Of a map's items, too, those are spared that would be running by now."""
    job = AMap()
    ledger = a_ledger([Stretch(job, 0, list(range(10)))])
    calls, (dropped,) = ledger.drop_unsent(spare=2)
    assert (calls, dropped.first, len(dropped)) == ([], 2, 8)
    assert (ledger.pending, ledger.queued) == (2, 2)
    assert [task.load.items for task in ledger.take()] == [[0], [1]]


def test_dropping_all_leaves_what_is_in_hand() -> None:
    """A broken executor drops what is queued, parked and sent; the dispatcher has the rest."""
    calls = [a_call(n) for n in range(5)]
    job = AMap()
    ledger = a_ledger([*calls, Stretch(job, 0, [5, 6])], limit=3)
    first, second, third = ledger.take()
    send(ledger, [first])
    ledger.park(calls[1])
    ledger.put_down(second)
    dropped, stretches = ledger.drop_all()
    assert set(dropped) == {calls[0], calls[1], calls[3], calls[4]}
    assert [(part.first, len(part)) for part in stretches] == [(0, 2)]
    assert third.calls == [calls[2]]
    assert ledger.pending == 1
    ledger.forget(calls[2])
    ledger.put_down(third)
    assert nothing_is_left(ledger)


# --- maps -----------------------------------------------------------------------------------


def test_items_of_a_map_go_in_runs() -> None:
    """The items of a map are taken from its front, and each run knows where it begins."""
    job = AMap()
    ledger = a_ledger([Stretch(job, 0, list(range(100)))], threads=1, known=1e-3)
    tasks = ledger.take()
    place = 0
    for task in tasks:
        assert isinstance(task.load, Stretch)
        assert task.load.first == place
        assert task.load.items == list(range(place, place + len(task.load)))
        place += len(task.load)
    assert place + ledger.queued == 100


def test_chunks_are_kept_whole() -> None:
    """A map with a chunksize gives tasks of multiples of it, whatever the policy says."""
    job = AMap(chunk=7)
    ledger = a_ledger([Stretch(job, 0, list(range(100)))], threads=2, known=10.0)
    assert [len(task.load) for task in ledger.take()] == [7, 7, 7, 7]
    quick = a_ledger([Stretch(AMap(chunk=7), 0, list(range(100)))], threads=2, known=1e-4)
    first = quick.take()[0]
    assert len(first.load) > 7
    assert len(first.load) % 7 == 0


def test_a_large_map_is_queued_in_pieces() -> None:
    """A map of many items is taken in order to its last one, in whole chunks, and can grow."""
    job = AMap(chunk=7)
    size = 2 * Ledger.PIECE + 5
    stretch = Stretch(job, 0, list(range(size)))
    ledger = a_ledger([stretch], threads=1, known=1e-4)
    assert ledger.pending == ledger.queued == size
    assert ledger.extend(stretch, size)
    lengths = []
    items: list[int] = []
    while ledger.pending:
        for task in send(ledger, ledger.take()):
            assert isinstance(task.load, Stretch)
            assert task.load.first == len(items)
            items += task.load.items
            lengths.append(len(task.load))
            settle(ledger, task)
    assert items == list(range(size + 1))
    assert {length % 7 for length in lengths[:-1]} == {0}


def test_items_handed_back_keep_their_places() -> None:
    """A run that was not begun is queued again as what it is: these items, from here on."""
    job = AMap()
    ledger = a_ledger([Stretch(job, 0, list(range(40)))], threads=1, known=1e-3, limit=1)
    (task,) = send(ledger, ledger.take())
    ledger.again(task, begun=3)
    assert ledger.told(task, 0, 3) == (0, 3)
    (again,) = ledger.take()
    assert isinstance(again.load, Stretch)
    assert (again.load.first, again.load.items[0]) == (3, 3)


def test_a_map_can_grow_while_it_is_queued() -> None:
    """Items are added to a stretch as long as some of it waits, and refused after that."""
    job = AMap()
    stretch = Stretch(job, 0, [0])
    ledger = a_ledger([stretch], limit=1)
    assert ledger.extend(stretch, 1)
    assert ledger.pending == 2
    (task,) = send(ledger, ledger.take())
    settle(ledger, task)
    settle(ledger, send(ledger, ledger.take())[0])
    assert not ledger.extend(stretch, 2)
    assert nothing_is_left(ledger)


def test_a_map_nobody_reads_is_dropped() -> None:
    """Dropping the items of one map leaves those of another."""
    one, other = AMap(), AMap()
    ledger = a_ledger([Stretch(one, 0, [0, 1]), Stretch(other, 0, [2]), Stretch(one, 2, [3])])
    assert ledger.forget_items(one) == []
    assert ledger.pending == ledger.queued == 1
    assert [task.load.items for task in ledger.take()] == [[2]]


def test_what_is_handed_back_of_a_dropped_map_is_over() -> None:
    """Items of a map that nobody reads, once sent, are named, and not queued again."""
    job = AMap(chunk=3)
    ledger = a_ledger([Stretch(job, 0, [0, 1, 2])])
    (task,) = ledger.take()
    ledger.send(task)
    job.cancelled = True
    assert ledger.forget_items(job) == [task.key]
    ledger.again(task, 1)
    assert (ledger.queued, ledger.pending) == (0, 1)
    assert ledger.told(task, 0, 1) == (0, 1)
    assert ledger.pending == 0
