"""What crosses the wire: tickets to workers, outcomes back. Floor 2.

A `Ticket` is one attempt of one Dask task, which carries one call or many; an `Outcome` says
what became of them. User's code is inside as bytes, each call on its own (`daskexec._pickling`).

A map's items may also travel *together*, as one pickle: when all of them are plain values,
numbers or strings, nobody can tell.
"""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from daskexec._failures import Failure
from daskexec._frames import Frames
from daskexec._large import Large
from daskexec._pickling import PLAIN

__all__ = ["Body", "Load", "Outcome", "Ticket", "all_plain", "size_of"]

#: Bytes from which on a blob travels beside the message it belongs to, not in it.
_BESIDE = 1 << 16

#: What a call came to: its pickled value, or what it raised.
Body = bytes | bytearray | memoryview | Frames | Failure


def all_plain(items: Iterable[Any], *, single: bool) -> bool:
    """Tell whether all arguments of all items are plain values, safe to pickle together.

    An item is its only argument if `single`, else a tuple of them.
    """
    return PLAIN.issuperset(map(type, items if single else chain.from_iterable(items)))


# --- there --------------------------------------------------------------------------------------


class Load:
    """The calls in a ticket.

    Attributes
    ----------
    functions : list of (bytes, bool)
        Pickled functions, and whether a worker may keep each (`_pickling.Functions`).
    which : list of int or None
        For each call the index of its function; -1 for a call pickled whole, as
        ``(fn, args, kwargs)``. None when all are calls of the only function.
    calls : list of bytes, or bytes
        For each call its pickled ``(args, kwargs)``. Bytes: the pickled list of the items of
        all calls together.
    single : bool
        Each of these items is the only argument of its call; else a tuple of all.
    large : sequence of Large
        What the calls refer to; it travels beside them. The client's only.
    given : list of str
        Keys of the earlier calls whose outcomes come with the task, in their order.
    bodies : dict of str to Body
        What other earlier calls came to, by their keys.
    values : sequence of (str, Any)
        Keys of the first ones, and the backend's own word for their values. The client's only.
    """

    __slots__ = ("bodies", "calls", "functions", "given", "large", "single", "values", "which")

    def __init__(
        self,
        functions: list[tuple[bytes, bool]],
        which: list[int] | None,
        calls: list[bytes] | bytes,
        single: bool = False,
        given: list[str] | None = None,
        bodies: dict[str, Body] | None = None,
    ) -> None:
        self.functions, self.which, self.calls = functions, which, calls
        self.single = single
        self.large: Sequence[Large] = ()
        self.values: Sequence[tuple[str, Any]] = ()
        self.given, self.bodies = given, bodies

    def pack(self) -> bytes:
        """Return it as bytes."""
        fields: tuple[Any, ...] = (self.functions, self.which, self.calls, self.single)
        if self.given or self.bodies:
            fields = (*fields, self.given, self.bodies)
        return pickle.dumps(fields, 5)

    @classmethod
    def unpack(cls, blob: Any) -> Load:
        """Read what `pack` wrote."""
        return cls(*pickle.loads(blob))


class Ticket:
    """One attempt of one task, as a worker receives it.

    Attributes
    ----------
    executor, key, topic : str
        Id of the executor, Dask key of this attempt, event topic to report to.
    load : bytes
        The packed `Load`.
    slot, turn : int
        Place on the board of begun tasks; slot -1 on clusters that daskexec did not start.
    has_initializer : bool
        The executor has one; a worker runs it before its first call.
    max_calls : int
        Calls after which the worker process is to be replaced, 0 for no limit.
    slow_after : float
        Seconds after which a call that still runs is reported as slow.
    stop_after : float
        Seconds after which no further call of the task is begun.
    needs : float
        Seconds that it is expected to take: a worker that ends before refuses it. 0: any takes it.
    captures : bool
        What its only call writes and logs is to come back with the outcome.
    home : str
        Id of the executor whose initializer, and whose globals of ``__main__``, are the calls';
        "": its own. Another's within calls.
    announced : bool
        The client must know that it runs before it does, since it may have to be killed.
    once : bool
        No worker begins it if one has that died since.
    """

    __slots__ = (
        "announced",
        "captures",
        "executor",
        "has_initializer",
        "home",
        "key",
        "load",
        "max_calls",
        "needs",
        "once",
        "slot",
        "slow_after",
        "stop_after",
        "topic",
        "turn",
    )

    def __init__(
        self,
        executor: str,
        key: str,
        topic: str,
        load: bytes,
        slot: int,
        turn: int,
        has_initializer: bool,
        max_calls: int,
        slow_after: float,
        stop_after: float,
        needs: float = 0.0,
        captures: bool = False,
        home: str = "",
        announced: bool = False,
        once: bool = False,
    ) -> None:
        self.executor, self.key, self.topic, self.load = executor, key, topic, load
        self.slot, self.turn = slot, turn
        self.has_initializer, self.max_calls = has_initializer, max_calls
        self.slow_after, self.stop_after, self.needs = slow_after, stop_after, needs
        self.captures, self.home = captures, home or executor
        self.announced, self.once = announced, once

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Ticket, (
            self.executor,
            self.key,
            self.topic,
            pickle.PickleBuffer(self.load) if protocol >= 5 else self.load,
            self.slot,
            self.turn,
            self.has_initializer,
            self.max_calls,
            self.slow_after,
            self.stop_after,
            self.needs,
            self.captures,
            self.home,
            self.announced,
            self.once,
        )

    def __sizeof__(self) -> int:
        return 300 + len(self.load)


# --- and back -----------------------------------------------------------------------------------


class Outcome:
    """What became of one attempt; the value of its Dask task.

    Attributes
    ----------
    kind : str
        "ran"; "initializer" (it raised: the failure is the only body); "refused" (another
        process, `pid`, began the task and did not finish it: `bodies` is what it has left,
        the call after these is the one it was running); "withdrawn" (stopped before);
        "leaving" (its worker ends too soon for it: `bodies` has the worker's address, `seconds`
        what is left to it and its lifetime); "missing" (not begun: earlier calls, whose keys are
        the bodies, have no value any more); "there" (it ran, and its only body, of `detail`
        bytes, is left where it is); "let go" (it ran, and Dask has let go of its result: `bodies`
        is what was left elsewhere).
    first, count : int
        Index of the call that the first body belongs to, and how many there are.
    bodies : list of bytes or Failure, or bytes
        What the calls from `first` on came to. Calls beyond them were not begun. (None: of what
        was left elsewhere, a result that was too large for that.) Bytes: the pickled list of the
        values of all of them together, plain ones.
    seconds : sequence of float
        Run time of each; or one for all of them.
    pid : int
        Process that ran it, or began it.
    detail : int
        Of a refusal: how far the other process had come (`daskexec._board`). Of what is there:
        its size.
    place : (str, str, str) or None
        Address, name and host of the worker that ran it.
    began : float
        When it began the first of these calls, by its clock.
    output : bytes
        What was captured of the only call (`daskexec._capture`).
    """

    __slots__ = (
        "began",
        "bodies",
        "count",
        "detail",
        "first",
        "kind",
        "output",
        "pid",
        "place",
        "seconds",
    )

    def __init__(
        self,
        kind: str,
        bodies: list[Any] | bytes,
        *,
        count: int = -1,
        first: int = 0,
        seconds: Sequence[float] = (),
        pid: int = 0,
        detail: int = 0,
        place: tuple[str, str, str] | None = None,
        began: float = 0.0,
        output: bytes = b"",
    ) -> None:
        self.kind, self.bodies, self.first, self.seconds = kind, bodies, first, seconds
        self.count = len(bodies) if count < 0 else count
        self.pid, self.detail = pid, detail
        self.place, self.began, self.output = place, began, output

    def unpacked(self) -> list[Any]:
        """Return a body for each call."""
        if isinstance(self.bodies, list):
            return self.bodies
        return [pickle.dumps(value, 5) for value in pickle.loads(self.bodies)]

    def size(self) -> int:
        """Return about how many bytes the results take."""
        bodies = self.bodies
        if self.kind == "there":
            return self.detail
        return sum(map(size_of, bodies)) if isinstance(bodies, list) else len(bodies)

    def brief(self) -> Outcome:
        """Return all of it but the bodies, as one that is there."""
        other = Outcome.__new__(Outcome)
        for name in Outcome.__slots__:
            setattr(other, name, getattr(self, name))
        other.kind, other.bodies, other.detail = "there", [], self.size()
        return other

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        bodies: Any = self.bodies
        if protocol >= 5 and isinstance(bodies, list):
            bodies = [_beside(body) for body in bodies]
        elif protocol >= 5:
            bodies = _beside(bodies)
        seconds = array("d", self.seconds).tobytes()
        return _outcome, (
            self.kind,
            bodies,
            self.count,
            self.first,
            seconds,
            self.pid,
            self.detail,
            self.place,
            self.began,
            self.output,
        )

    def __sizeof__(self) -> int:
        return 300 + 50 * self.count + self.size() + len(self.output)


def _beside(body: Any) -> Any:
    if isinstance(body, bytes) and len(body) >= _BESIDE:
        return pickle.PickleBuffer(body)
    return body


def _outcome(
    kind: str, bodies: Any, count: int, first: int, seconds: bytes, *more: Any
) -> Outcome:
    pid, detail, place, began, output = more
    return Outcome(
        kind,
        bodies,
        count=count,
        first=first,
        seconds=array("d", seconds),
        pid=pid,
        detail=detail,
        place=place,
        began=began,
        output=output,
    )


def size_of(body: Body) -> int:
    """Return about how many bytes a body takes."""
    if isinstance(body, Failure):
        return 400 + len(body.trace) + len(body.blob or b"")
    return len(body)
