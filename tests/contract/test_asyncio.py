"""asyncio: the executor serves a loop, and never blocks it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

import pytest
from daskexec_testing import calls
from daskexec_testing.gates import Gates, eventually


def test_run_in_executor(executor: Executor) -> None:
    """loop.run_in_executor returns results and raises errors."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(executor, calls.add, 1, 2) == 3
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(executor, calls.inverse, 0)

    asyncio.run(main())


def test_gather(executor: Executor) -> None:
    """Many calls can be gathered, in order."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(loop.run_in_executor(executor, calls.identity, i) for i in range(50))
        )

    assert asyncio.run(main()) == list(range(50))


def test_wrap_future(executor: Executor, gates: Gates) -> None:
    """asyncio.wrap_future makes a future of the loop, and the loop goes on meanwhile."""
    release = gates.gate()

    async def main() -> int:
        wrapped = asyncio.wrap_future(executor.submit(calls.wait_for, release, 5))
        await asyncio.sleep(0)
        assert not wrapped.done()
        release.open()
        return await wrapped

    assert asyncio.run(main()) == 5


def test_cancelling_the_wrapper(single: Executor, gates: Gates) -> None:
    """Cancelling the loop's future cancels the call that has not begun."""
    started, release = gates.gate(), gates.gate()
    single.submit(calls.hold, started, release)
    started.wait()
    futures = [single.submit(calls.identity, i) for i in range(10)]

    async def main() -> None:
        wrapped = asyncio.wrap_future(futures[-1])
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped

    asyncio.run(main())
    eventually(futures[-1].cancelled, "the call is cancelled")  # it may have to be asked for
    release.open()
    assert [future.result() for future in futures[:-1]] == list(range(9))


def test_loop_that_ends_first(executor: Executor, gates: Gates) -> None:
    """A loop that is closed before its call is done harms nobody."""
    release = gates.gate()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(
                asyncio.shield(loop.run_in_executor(executor, calls.wait_for, release)), 0.05
            )

    asyncio.run(main())
    release.open()
    assert executor.submit(calls.identity, 1).result(30) == 1
