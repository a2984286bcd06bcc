"""dask-jobqueue's clusters, made to say what fails and to forget what is gone.

What they do by themselves is listed with each method that does otherwise. All of this runs on
the cluster's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed.core import Status
from distributed.deploy.cluster import Cluster

from daskexec._quiet import quiet
from daskexec.kinds._job_book import JobBook
from daskexec.kinds._jobs import cluster_class
from daskexec.kinds._queue_status import Said

__all__ = ["Refused", "observed"]

#: Seconds in which a queue must take a job, and cancel one.
SUBMIT_PATIENCE = 120.0

#: Seconds in which the scheduler must move the results of workers that are to leave.
_RETIRE_PATIENCE = 30.0


class Refused(RuntimeError):
    """A command of the queue has failed; the message is what it said."""

    def __init__(self, said: Said) -> None:
        self.said = said
        code = f" (exit code {said.code})" if said.code >= 0 else ""
        words = said.err or said.out.strip() or "it said nothing"
        lines = "\n".join(f"    {line}" for line in words.splitlines())
        super().__init__(f"`{said.command}` failed{code}:\n{lines}")


if TYPE_CHECKING:

    class _JobBase:
        """What is used of dask_jobqueue.core.Job."""

        name: str
        job_id: str | None
        status: Status
        submit_command: str
        cancel_command: str

        async def start(self) -> None: ...
        async def _submit_job(self, script_filename: str) -> str: ...

    class _ClusterBase(Cluster):
        """What is used of dask_jobqueue.core.JobQueueCluster."""

        _name: str
        scheduler: Any
        workers: dict[str, Any]
        worker_spec: dict[str, Any]
        new_spec: dict[str, Any]

        async def _start(self) -> None: ...
        async def _correct_state_internal(self) -> None: ...
        def scale(
            self, n: Any = None, jobs: int = 0, memory: Any = None, cores: Any = None
        ) -> Any: ...
else:
    _JobBase = _ClusterBase = object


class _Job(_JobBase):
    """A job that is written down in a book."""

    book: JobBook

    async def start(self) -> None:
        """Submit the job; unlike Dask's, one that is refused counts as failed, not as created."""
        try:
            if self.book.closing.is_set():
                raise RuntimeError("the cluster is being closed")
            await super().start()
        except Exception as exc:
            self.status = Status.failed
            self.book.refused(str(exc))
            raise
        assert self.job_id is not None
        self.book.submitted(self.name, self.job_id)
        if self.book.closing.is_set():  # the close may not have waited for so long
            await self.close()

    async def _submit_job(self, script_filename: str) -> str:
        """Submit a script; unlike Dask's, what LSF says of it is not thrown away."""
        if getattr(self, "use_stdin", False):
            return await self._call(shlex.split(self.submit_command), script=script_filename)
        return await super()._submit_job(script_filename)

    async def close(self) -> None:
        """Cancel the job, if it may be there; unlike Dask's, it ends as closed."""
        try:
            if self.job_id and self.book.cancelled(self.name):
                with contextlib.suppress(Refused):  # it has ended meanwhile
                    await self._call([*shlex.split(self.cancel_command), self.job_id])
        finally:
            self.status = Status.closed

    @staticmethod
    async def _call(command: Sequence[str], script: str | None = None) -> str:
        """Run a command; unlike Dask's, out of reach of Ctrl-C, and not for ever."""
        said = await _run(command, script)
        if said.code:
            raise Refused(said)
        return said.out


async def _run(command: Sequence[str], script: str | None) -> Said:
    text = " ".join(command) + (f" < {script}" if script else "")
    data = Path(script).read_bytes() if script else None
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL if data is None else pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
    except OSError as exc:
        return Said(text, 127, "", f"{command[0]}: {exc.strerror}. Is this a host of the cluster?")
    try:
        out, err = await asyncio.wait_for(process.communicate(data), SUBMIT_PATIENCE)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        return Said(text, -1, "", f"no answer within {SUBMIT_PATIENCE:g} s")
    return Said(text, process.returncode or 0, out.decode(), err.decode(errors="replace").strip())


class _Cluster(_ClusterBase):
    """A cluster whose book knows each job, whose names never come twice."""

    book: JobBook
    numbers: Iterator[int]

    async def _start(self) -> None:
        quiet.add(threading.get_ident())
        await super()._start()

    def new_worker_spec(self) -> dict[str, Any]:
        """Return the spec of another job, by a new name; Dask's uses those of the dead again."""
        return {f"{self._name}-{next(self.numbers)}": self.new_spec}

    def scale(self, n: Any = None, jobs: int = 0, memory: Any = None, cores: Any = None) -> Any:
        """Set the number of jobs; one that grows waits while the queue or the jobs fail."""
        if n is not None:
            jobs, n = -(-int(n) // self._processes()), None
        if not self.book.may_submit():
            jobs = min(jobs, len(self.worker_spec))
        return super().scale(jobs=jobs, memory=memory, cores=cores)

    def _processes(self) -> int:
        return int(self.new_spec["options"]["processes"])

    async def _correct_state_internal(self) -> None:
        """Make jobs of the spec; those that failed to start are forgotten, Dask keeps them."""
        leaving = self.book.addresses(set(self.workers) - set(self.worker_spec))
        if leaving and not self.book.closing.is_set():
            # Dask's asks the scheduler to retire workers by their names, which it ignores.
            with contextlib.suppress(Exception):
                await asyncio.wait_for(
                    self.scheduler.retire_workers(leaving, close_workers=False, remove=False),
                    _RETIRE_PATIENCE,
                )
        try:
            await super()._correct_state_internal()
        except Exception:  # the book has it
            pass
        finally:
            for name, job in [*self.workers.items()]:
                if job.status == Status.failed:
                    self.workers.pop(name, None)
                    self.worker_spec.pop(name, None)

    def _update_worker_status(self, op: str, msg: Any) -> None:
        """Note who comes and goes. Lost jobs are left to the watcher, which asks the queue."""
        if op == "add":
            for address, worker in msg["workers"].items():
                self.book.joined(address, str(worker["name"]))
        elif op == "remove":
            self.book.left(msg)
        Cluster._update_worker_status(self, op, msg)


def observed(kind: str) -> Callable[..., Any]:
    """Return what makes dask-jobqueue's cluster for a kind of queue, given a ``book`` too.

    Raises
    ------
    ClusterStartFailed
        dask-jobqueue is not installed.
    """
    base = cluster_class(kind)

    def make(book: JobBook, **options: Any) -> Any:
        job = type(base.job_cls.__name__, (_Job, base.job_cls), {"book": book})
        numbers = itertools.count()
        members = {"job_cls": job, "book": book, "numbers": numbers}
        return type(base.__name__, (_Cluster, base), members)(**options)

    return make
