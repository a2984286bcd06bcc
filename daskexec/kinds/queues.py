"""Clusters whose workers are jobs of a batch queue, by dask-jobqueue.

The scheduler runs here, in a loop of its own; each job is one worker (or several processes), and
a thread asks the queue every few seconds what became of the jobs::

    caller's thread        the cluster's loop              the watcher's thread
    open_cluster ------->  scheduler, first submission
    scale        ------->  submissions, cancellations
                           workers come and go --------->  JobBook
                           <----- drop the lost, -------   asks the queue (squeue, qstat ...)
                                  submit others
    trouble, fate  <---------------------------------------- JobBook
    close        ------->  scheduler ends; then all jobs are cancelled by the caller's thread
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import shlex
import threading
import time
import warnings
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

from daskexec._quiet import quiet, quiet_here
from daskexec.config import ClusterConfig
from daskexec.errors import ClusterStartFailed, ExecutorWarning
from daskexec.kinds._job_book import JobBook
from daskexec.kinds._job_cluster import SUBMIT_PATIENCE, observed
from daskexec.kinds._jobs import (
    as_config_error,
    clear_run_folder,
    cluster_options,
    job_script,
    new_run_folder,
    own_certificates,
    told,
    worker_security,
)
from daskexec.kinds._queue_status import JobState, QueueSilent, ask, run

__all__ = ["QueueCluster", "job_script", "open_cluster"]

_LOG = logging.getLogger("daskexec")

#: Seconds for which `fate` waits for the queue's word on a worker that has just gone.
_FATE_PATIENCE = 5.0

#: Seconds that each step of closing may take.
_STEP_PATIENCE = 20.0

#: Seconds after which a job that was cancelled must have left the queue.
_CANCEL_PATIENCE = 20.0

#: Growing and shrinking, where the config says nothing: an idle job goes after some looks only.
_ADAPT = {"minimum_jobs": 0, "interval": "3s", "wait_count": 12}


def open_cluster(config: ClusterConfig, workers: int | None = None) -> QueueCluster:
    """Start a scheduler and submit the first jobs; return when the queue has taken them.

    Parameters
    ----------
    config : ClusterConfig
    workers : int, optional
        Worker threads, in place of the config's ``scale``; the most, where it has ``adapt``.

    Raises
    ------
    ClusterStartFailed
        The queue took none of the jobs, or the scheduler did not start; nothing is left. A
        part of the jobs is enough: the others are tried again later.
    ConfigError
        dask-jobqueue does not take what the config says.
    """
    with config.in_force():
        cluster = QueueCluster(config)
        try:
            cluster.start(workers)
        except BaseException:
            cluster.close()
            raise
    return cluster


class QueueCluster:
    """A cluster of jobs; see `daskexec.kinds.RunningCluster`.

    Any method may be called from any thread but the cluster's own loop.
    """

    def __init__(self, config: ClusterConfig) -> None:
        import dask
        from dask.utils import parse_timedelta

        self._class = observed(config.kind)
        self.address = ""
        self.security: Any = None
        self._config = config
        self._cluster: Any = None
        self._target: int | None = None  # jobs, of a cluster of fixed size
        self._closed = False
        self._lock = threading.Lock()  # guards the close
        self._watcher = threading.Thread(target=self._watch, name="daskexec-queue", daemon=True)
        self._settings = contextlib.ExitStack()
        self._folder = new_run_folder(config)
        self._options = cluster_options(config, self._folder)
        lost_after = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
        self._book = JobBook(Path(self._options["log_directory"]), lost_after)

    # --- starting --------------------------------------------------------------------------------

    def start(self, workers: int | None) -> None:
        """Start the scheduler and submit the first jobs."""
        config = self._config
        security = self._secure()
        with quiet_here():
            try:
                with as_config_error(config):
                    self._cluster = self._class(
                        book=self._book, security=security, **self._options
                    )
            except (RuntimeError, OSError) as exc:
                raise ClusterStartFailed(f"{self._which()} did not start: {exc}") from exc
        self._cluster.shutdown_on_close = False  # our own hook ends the jobs as well
        atexit.register(self.close)
        self.address = self._book.address = self._cluster.scheduler_address
        self._begin(workers)
        self._watcher.start()

    def keep(self, settings: contextlib.ExitStack) -> None:
        """Take over Dask's settings that are in force; they are put back by the close.

        The scheduler reads some of them while it runs, such as how long a connection may take.
        """
        self._settings = settings

    def _which(self) -> str:
        source = f" ({self._config.source})" if self._config.source else ""
        return f"the cluster {self._config.name!r}{source}"

    def _secure(self) -> Any:
        """Make the certificates of this run; return the security of scheduler and workers.

        The workers' are in files: a file system is the one way to all of them. What clients
        use, and the scheduler, stays in memory.
        """
        if self._config.insecure:
            return None
        from distributed import Security

        own = own_certificates()
        if own is not None:
            self.security = own
            return own
        try:
            made = self.security = Security.temporary()
        except ImportError:
            raise ClusterStartFailed(
                f"{self._which()}: to encrypt what the jobs and this process say needs the "
                f"package cryptography: pip install 'daskexec[hpc]', or set `insecure: true` "
                f"where nobody else can reach the network"
            ) from None
        security = worker_security(self._config, self._folder)
        for path, text in (
            (security.tls_ca_file, made.tls_ca_file),
            (security.tls_worker_cert, made.tls_worker_cert),
            (security.tls_worker_key, made.tls_worker_key),
        ):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
        for name in ("scheduler_cert", "scheduler_key", "client_cert", "client_key"):
            setattr(security, f"tls_{name}", getattr(made, f"tls_{name}"))
        return security

    def _begin(self, workers: int | None) -> None:
        config = self._config
        jobs = None if workers is None else self._jobs_for(workers)
        if config.adapt:
            options = {**_ADAPT, **config.adapt}
            if {"minimum", "maximum"} & set(options):  # in workers: no bounds in jobs as well
                options.pop("minimum_jobs")
            if jobs is not None:
                options["maximum_jobs"] = jobs
            first = int(options.get("minimum_jobs") or 0)
            if first:
                self._submit(first)
            with quiet_here():
                self._cluster.adapt(**options)
        else:
            if jobs is None:
                jobs = config.scale.get("jobs") or self._jobs_for(config.scale.get("workers", 1))
            self._target = jobs
            self._submit(jobs)

    def _jobs_for(self, workers: int) -> int:
        return -(-workers // max(1, int(told(self._config, "cores") or 1)))

    def _submit(self, jobs: int) -> None:
        """Ask for so many jobs altogether; raise if there are none, as all were refused."""
        self._on_loop(self._scale(jobs), SUBMIT_PATIENCE + _STEP_PATIENCE)
        refusals = self._book.refusals()
        if refusals and not self._cluster.workers:
            raise ClusterStartFailed(
                f"{self._which()} did not start, as the queue takes no job: {refusals[-1]}\n"
                f"{self._hint()}"
            )

    def _hint(self) -> str:
        return (
            f"`daskexec check {self._config.source or self._config.name}` prints the job script."
        )

    async def _scale(self, jobs: int) -> None:
        self._cluster.scale(jobs=jobs)
        await self._cluster._correct_state()

    def _on_loop(self, coroutine: Any, patience: float) -> None:
        done = asyncio.run_coroutine_threadsafe(coroutine, self._cluster.loop.asyncio_loop)
        try:
            done.result(patience)
        except FutureTimeout:
            done.cancel()
            raise ClusterStartFailed(
                f"{self._which()}: the queue has not answered within {patience:g} s"
            ) from None

    # --- while it runs ---------------------------------------------------------------------------

    def _watch(self) -> None:
        """Ask the queue again and again: the watcher's thread."""
        while not self._book.closing.is_set():
            ids = self._book.to_watch()
            try:
                self._book.look(ask(self._config.kind, ids))
            except QueueSilent as exc:
                self._book.silent(str(exc))
            except Exception:  # an answer that nobody has foreseen
                _LOG.exception("daskexec: what the queue says of jobs %s is not understood", ids)
                self._book.silent("its answer is not understood")
            if self._book.closing.is_set():
                return
            with contextlib.suppress(Exception):  # it is late, or the loop ends
                self._on_loop(self._reconcile(), SUBMIT_PATIENCE)
            self._book.wake.wait(self._book.next_look())
            self._book.wake.clear()

    async def _reconcile(self) -> None:
        """Forget the jobs that are gone, and submit others in their place."""
        cluster = self._cluster
        for name in self._book.to_drop():
            cluster.worker_spec.pop(name, None)
            job = cluster.workers.pop(name, None)
            if job is not None:
                await job.close()
            else:
                self._book.cancelled(name)
        if self._target is not None and len(cluster.worker_spec) < self._target:
            await self._scale(self._target)

    def trouble(self) -> tuple[bool, str]:
        """Say what keeps workers from joining, in the queue's words; does not block."""
        final, known = self._book.trouble()
        return final, f"{known}\n{self._hint()}" if final else known

    def fate(self, worker: str) -> str:
        """Return what the queue says of the job of a worker that has gone; else "".

        Waits some seconds for the queue's word if that has not come yet.
        """
        book, deadline = self._book, time.monotonic() + _FATE_PATIENCE
        while not book.settled(worker) and not book.closing.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            book.wake.set()
            with book.looked:
                book.looked.wait(min(left, 0.5))
        return book.fate(worker)

    def scale(self, workers: int) -> None:
        """Ask for as many jobs as give so many worker threads.

        Raises
        ------
        ClusterStartFailed
            There is no job, and the queue takes none.
        """
        jobs = self._jobs_for(workers)
        if self._target is None:
            adaptive = getattr(self._cluster, "_adaptive", None)
            if adaptive is not None:
                adaptive.stop()
        self._target = jobs
        self._submit(jobs)

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """End scheduler and workers and cancel every job; blocks, a minute or two at most.

        Warns with an `ExecutorWarning` of jobs that the queue did not let go.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            atexit.unregister(self.close)
            self._book.closing.set()
            self._book.wake.set()
            try:
                self._end_cluster()
                self._cancel_all()
            finally:
                if self._watcher.is_alive():
                    self._watcher.join(_STEP_PATIENCE)
                self._settings.close()
                clear_run_folder(self._folder, keep_logs=self._book.failed)

    def _end_cluster(self) -> None:
        cluster = self._cluster
        if cluster is None:
            return
        thread = getattr(cluster._loop_runner, "_loop_thread", None)
        with quiet_here():
            with contextlib.suppress(Exception):  # a submission that hangs: its job is cancelled
                self._on_loop(self._let_go(), _STEP_PATIENCE)
            with contextlib.suppress(Exception):
                cluster.close(timeout=_STEP_PATIENCE)
        quiet.discard(getattr(thread, "ident", None))

    async def _let_go(self) -> None:
        """Have Dask forget the jobs, which are cancelled all at once: it would one by one."""
        from distributed.core import Status

        cluster = self._cluster
        adaptive = getattr(cluster, "_adaptive", None)
        if adaptive is not None:
            adaptive.stop()
        async with cluster._lock:  # no submission is under way
            cluster.worker_spec.clear()
            for job in cluster.workers.values():
                job.status = Status.closed
            cluster.workers.clear()

    def _cancel_all(self) -> None:
        left = self._book.in_queue()
        if not left or self._cluster is None:
            return
        command = shlex.split(self._cluster._dummy_job.cancel_command)
        deadline = time.monotonic() + _CANCEL_PATIENCE
        while True:
            for start in range(0, len(left), 100):
                run([*command, *left[start : start + 100]])
            with contextlib.suppress(QueueSilent):
                left = _still_there(ask(self._config.kind, left))
            if not left:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        # Not warnings.warn: no line of this file explains anything to its reader.
        warnings.warn_explicit(
            f"{self._which()} is closed, but may have jobs in the queue, which did not let them "
            f"go: {' '.join([*command, *left])}",
            ExecutorWarning,
            "daskexec",
            0,
        )


def _still_there(states: dict[str, JobState]) -> list[str]:
    """Return the jobs that are not ending, as far as can be told."""
    ending = ("COMPLETING", "EXITING", "d", "Finishing")
    return [
        job
        for job, state in states.items()
        if state.stays or (state.phase != "ended" and not state.words.startswith(ending))
    ]
