"""Where calls stand, without threads and without a cluster."""

from __future__ import annotations

from pathlib import Path

from daskexec._board import Board
from daskexec._ledger import OVER, QUEUED, SENT, Call, Ledger
from daskexec._messages import Started
from daskexec.futures import DaskFuture
from daskexec.options import CallOptions


def a_call(number: int = 0, **options: int) -> Call:
    future: DaskFuture[object] = DaskFuture(f"f-{number:028x}0000")
    call = Call(future, abs, (number,), {}, CallOptions(**options))
    future._call = call
    return call


def send(ledger: Ledger, call: Call) -> None:
    assert ledger.put_down(call)
    ledger.send(call)


def test_first_come_first_served_within_a_priority() -> None:
    """Calls are taken by priority, then in the order in which they came."""
    ledger = Ledger()
    calls = [a_call(0), a_call(1, priority=5), a_call(2), a_call(3, priority=5)]
    for call in calls:
        ledger.add(call)
    assert ledger.take(3) == [calls[1], calls[3], calls[0]]
    assert ledger.take(3) == [calls[2]]


def test_cancelled_ones_leave_no_gap() -> None:
    """Calls cancelled in the queue are passed over, however many there are."""
    ledger = Ledger()
    calls = [a_call(n) for n in range(100)]
    for call in calls:
        ledger.add(call)
    for call in calls[:99]:
        assert ledger.forget_unsent(call)
    assert ledger.take(2) == [calls[99]]


def test_cancelled_alone_leave_nothing_pending() -> None:
    """When all that was queued is cancelled, taking ends what is pending."""
    ledger = Ledger()
    call = a_call()
    ledger.add(call)
    ledger.forget_unsent(call)
    assert ledger.take(2) == []
    assert ledger.pending() == 0


def test_sent_calls_cannot_be_dropped_at_once() -> None:
    """What is with the scheduler is not for the client alone to cancel."""
    ledger = Ledger()
    call = a_call()
    ledger.add(call)
    ledger.take(1)
    send(ledger, call)
    assert not ledger.forget_unsent(call)
    assert call.stage == SENT


def test_cancelled_in_hand_is_not_sent() -> None:
    """A call cancelled while it is being pickled is put down for good."""
    ledger = Ledger()
    call = a_call()
    ledger.add(call)
    ledger.take(1)
    assert ledger.forget_unsent(call)
    assert not ledger.put_down(call)
    assert ledger.pending() == 0


def test_another_attempt_has_a_key_of_its_own() -> None:
    """An attempt is told from the one before it, and goes ahead of all others."""
    ledger = Ledger()
    call, other = a_call(1), a_call(2)
    ledger.add(call)
    ledger.take(1)
    send(ledger, call)
    first = call.key
    ledger.add(other)
    ledger.again(call)
    assert call.key != first
    assert first not in ledger.sent
    assert ledger.take(2) == [call, other]


def test_suspects_go_one_at_a_time() -> None:
    """Calls that were there when workers died are tried again one after the other."""
    ledger = Ledger()
    calls = [a_call(n) for n in range(3)]
    for call in calls:
        ledger.add(call)
    ledger.take(3)
    for call in calls:
        send(ledger, call)
    for call in calls:
        call.suspect = True
        ledger.again(call)
    assert ledger.take(9) == [calls[0]]
    send(ledger, calls[0])
    assert ledger.take(9) == []
    ledger.forget(calls[0])
    assert ledger.take(9) == [calls[1]]


def test_dropping_spares_the_first() -> None:
    """A shutdown that cancels spares as many as would be running by now."""
    ledger = Ledger()
    calls = [a_call(n) for n in range(10)]
    for call in calls:
        ledger.add(call)
    assert ledger.drop_unsent(spare=2) == calls[2:]
    assert [call.stage for call in calls] == [QUEUED] * 2 + [OVER] * 8
    assert ledger.take(9) == calls[:2]


def test_hurrying_needs_no_room() -> None:
    """A call that hurries is taken though the window is full, and just once."""
    ledger = Ledger()
    calls = [a_call(n) for n in range(3)]
    for call in calls:
        ledger.add(call)
    ledger.hurry(calls[2])
    ledger.hurry(calls[2])
    assert ledger.take(0) == [calls[2]]
    assert ledger.take(9) == calls[:2]


def test_worn_worker_is_replaced_when_it_owes_nothing() -> None:
    """A worn process is named once, when all calls that it began are over."""
    ledger = Ledger()
    calls = [a_call(n) for n in range(2)]
    for call in calls:
        ledger.add(call)
    ledger.take(2)
    for call in calls:
        send(ledger, call)
        ledger.started(Started(call.key, "tcp://w", "0", 77, worn=call is calls[1]))
    ledger.forget(calls[0])
    assert ledger.worn_out() == []
    ledger.forget(calls[1])
    assert ledger.worn_out() == [77]
    assert ledger.worn_out() == []


def test_slots_of_the_board_come_back(tmp_path: Path) -> None:
    """A call holds its slot from when it is sent until it is over, and no longer."""
    ledger = Ledger()
    ledger.board = board = Board(tmp_path / "board", create=True)
    call = a_call()
    ledger.add(call)
    ledger.take(1)
    assert ledger.put_down(call)
    turn = ledger.send(call)
    slot = call.slot
    assert board.has_turn(slot, turn)
    ledger.forget(call)
    assert call.slot == -1
    board.close()
