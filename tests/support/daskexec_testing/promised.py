"""Values that the client must not unpickle, calls over them, and a count of what it reads."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from daskexec_testing.gates import Gate, Journal


class Guarded:
    """So many bytes, and how many stages they went through; the client cannot unpickle it."""

    def __init__(self, size: int, client: int) -> None:
        self.data, self.stages, self.client = bytes(size), 1, client

    def __getstate__(self) -> Any:
        return self.client, self.data, self.stages

    def __setstate__(self, state: Any) -> None:
        self.client, self.data, self.stages = state
        if os.getpid() == self.client:
            raise RuntimeError("unpickled by the client")

    def __hash__(self) -> int:
        return 1


@dataclass
class Box:
    content: Any


def on(value: Guarded, more: Any = None) -> Guarded:
    value.stages += 1
    return value


def told(value: Guarded) -> tuple[int, int]:
    return value.stages, len(value.data)


def sizes(*args: Any, **kwargs: Any) -> int:
    """Bytes of all guarded values, wherever they are in the arguments."""
    return sum(len(value.data) for value in _all([args, kwargs]))


def _all(value: Any) -> Iterator[Guarded]:
    if isinstance(value, Guarded):
        yield value
    elif isinstance(value, Box):
        yield from _all(value.content)
    elif isinstance(value, dict):
        yield from _all([*value, *value.values()])
    elif isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from _all(one)


def are_same(one: Any, others: list[Any]) -> bool:
    return all(one is other for other in others)


def append(values: list[int], value: int) -> list[int]:
    """Change what was given in place."""
    values.append(value)
    return values


def numbers(count: int) -> list[int]:
    return list(range(count))


def total(groups: Any) -> int:
    """The sum of numbers in lists within lists."""
    return groups if isinstance(groups, int) else sum(map(total, groups))


def wait_and_guard(gate: Gate, size: int, client: int) -> Guarded:
    """Not before the gate is open: a result that nothing needs when it is there is fetched."""
    gate.wait()
    return Guarded(size, client)


def filled(size: int, gate: Gate, journal: Journal | None = None) -> tuple[int, bytearray]:
    """Its process, and so many bytes, not before the gate is open."""
    gate.wait()
    if journal is not None:
        journal.write("filled")
    return os.getpid(), bytearray(size)


def place(value: tuple[int, bytearray]) -> int:
    return value[0]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def within(address: str, count: int) -> int:
    """A call that has futures as arguments of calls of its own."""
    from daskexec import DaskExecutor

    with DaskExecutor(cluster=address) as executor:
        made = executor.submit(numbers, count)
        return executor.submit(total, [executor.submit(append, made, 1), made]).result()


def kept(client: Any) -> int:
    """Bytes of values that the workers have."""
    return int(sum(client.run(_kept).values()))


def _kept(dask_worker: Any) -> int:
    return sum(sys.getsizeof(value) for value in dask_worker.data.values())


class Reads:
    """Bytes that this process has read of Dask's messages."""

    def __init__(self) -> None:
        self.count = 0


@contextlib.contextmanager
def counted_reads() -> Iterator[Reads]:
    """Count what is read from the sockets of Dask's messages: the buffers that it is read into."""
    from distributed.comm import tcp

    reads = Reads()
    plain = tcp.host_array

    def host_array(size: int) -> Any:
        reads.count += size
        return plain(size)

    tcp.host_array = host_array  # type: ignore[attr-defined]
    try:
        yield reads
    finally:
        tcp.host_array = plain  # type: ignore[attr-defined]
