"""The scheduler of a cluster on this machine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from distributed import Client, Worker

from daskexec._local import LOOPBACK, Scheduler

pytestmark = pytest.mark.timeout(60)
LIMIT = 30
ran: list[int] = []


def _note(number: int) -> None:
    ran.append(number)


class _Joining(Worker):
    """It has joined, and does not say that it can be given anything until told to."""

    def _send_worker_status_change(self, stimulus_id: str) -> None:
        pass

    def run(self) -> None:
        super()._send_worker_status_change("it runs")


async def _while_it_joins() -> set[str]:
    """Have tasks submitted before and while the first worker joins; return their states then."""

    async def seen(tasks: int) -> None:
        while len(scheduler.tasks) < tasks:
            await asyncio.sleep(0.005)

    options: dict[str, Any] = {"host": LOOPBACK, "port": 0, "dashboard": False}
    async with (
        Scheduler(**options) as scheduler,
        Client(scheduler.address, asynchronous=True, set_as_default=False) as client,
    ):
        futures: list[Any] = []

        def submit(number: int) -> None:
            key = f"note-{number}"
            futures.append(client.submit(_note, number, key=key, pure=False, fifo_timeout="0 s"))

        submit(0)
        await seen(1)
        worker = await _Joining(scheduler.address, nthreads=1, dashboard=False)
        for number in (1, 2, 3):
            submit(number)
            await seen(number + 1)
        states = {task.state for task in scheduler.tasks.values()}
        worker.run()
        await client.gather(futures)
        await worker.close()
    return states


def test_tasks_begin_in_order_while_the_first_worker_joins() -> None:
    """Those that came before it and those that came while it joined wait in different places."""
    ran.clear()
    states = asyncio.run(asyncio.wait_for(_while_it_joins(), LIMIT))
    assert {"queued", "no-worker"} <= states
    assert ran == [0, 1, 2, 3]
