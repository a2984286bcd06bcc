"""A workload: a scheduler that is far away; and the proxy that makes it so.

``python -m benchmarks.delay HOST PORT MILLISECONDS`` listens on a free port of 127.0.0.1, prints
it, and passes on what it gets to HOST:PORT and back, each piece that much later.

What is delayed: every byte between the client and the scheduler, in both directions, so a
question and its answer take twice the delay longer. What is not: the workers' connections to
the scheduler, which are near it, as in a cluster that is used from afar; and connections of the
client to workers, if it makes any (the workload counts and tells them). The order is kept and
the bandwidth is not limited; loss, and the growth of TCP's window, are not simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from benchmarks import functions
from benchmarks.cluster import dask_cluster
from benchmarks.turn import Turn, check, warm_up

__all__ = ["delayed", "run"]

#: One way, in milliseconds.
DELAY = 20.0

_PIECE = 1 << 18
_PIECES = 256  # on the way at a time; more wait at their sender


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
) -> None:
    """Pass on what is read, `delay` seconds after it was read."""
    loop = asyncio.get_running_loop()
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES)

    async def deliver() -> None:
        while True:
            due, data = await on_the_way.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    try:
        while True:
            try:
                data = await reader.read(_PIECE)
            except ConnectionError:
                data = b""
            await on_the_way.put((loop.time() + delay, data))
            if not data:
                break
        await delivery
    except ConnectionError:
        writer.close()
    finally:
        delivery.cancel()


async def _serve(host: str, port: int, delay: float) -> None:
    async def connected(near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        try:
            far, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            near_writer.close()
            return
        await asyncio.gather(
            _pass_on(near, far_writer, delay),
            _pass_on(far, near_writer, delay),
            return_exceptions=True,
        )

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


@contextlib.contextmanager
def delayed(address: str, milliseconds: float) -> Iterator[str]:
    """Yield an address that leads to ``tcp://HOST:PORT``, that much slower in each direction."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    command = [sys.executable, "-m", "benchmarks.delay", host, port, str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"tcp://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def run(turn: Turn) -> None:
    """Tiny calls, and one at a time, through a delayed connection to the scheduler."""
    with (
        dask_cluster(turn.width) as cluster,
        delayed(cluster.address, DELAY) as address,
        turn.peer.open(turn.width, address) as adapter,
    ):
        warm_up(adapter, turn.width)
        times = []
        for _ in range(turn.count(30, least=5)):
            begin = time.perf_counter()
            adapter.submit(functions.nothing).result()
            times.append(time.perf_counter() - begin)
        n = turn.count(10_000, 1_000)
        begin = time.perf_counter()
        results = adapter.gather([adapter.submit(functions.tiny, i) for i in range(n)])
        submitted = time.perf_counter() - begin
        check(results, range(1, n + 1))
        begin = time.perf_counter()
        results = adapter.map(functions.tiny, range(n))
        mapped = time.perf_counter() - begin
        check(results, range(1, n + 1))
        turn.figures(median=statistics.median(times) * 1e3, submit=n / submitted, map=n / mapped)
        through = int(address.rpartition(":")[2])
        around = [
            connection
            for connection in psutil.Process().net_connections("tcp")
            if connection.status == psutil.CONN_ESTABLISHED and connection.raddr.port != through
        ]
        if around:
            turn.note(f"{len(around)} connections went around the delay")


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1e3))
