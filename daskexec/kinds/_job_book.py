"""What is known of the jobs of one cluster, and what follows from it.

The cluster's loop writes down submissions and the coming and going of workers, the watcher what
the queue says; anybody may ask. Nothing here talks to a queue or waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from daskexec.kinds._job_logs import log_tail, process_end
from daskexec.kinds._queue_status import GONE, SUBMITTED, JobState, tell

__all__ = ["Job", "JobBook"]

#: Jobs in a row that end before their workers join, or are refused, after which it is hopeless.
ENOUGH = 3

#: Looks at the queue in a row that do not find a job, after which it has ended.
_MISSED = 2

#: Seconds for which a job may run before it is remarkable that its worker has not joined.
_SLOW_START = 20.0

#: Ended jobs that are remembered.
_REMEMBERED = 1000


@dataclass
class Job:
    """One job, as last seen."""

    name: str  # of its worker; with several, of their common stem
    id: str
    since: float  # when it was submitted
    state: JobState = SUBMITTED
    running_since: float | None = None
    workers: set[str] = field(default_factory=set)  # addresses of those that are there
    joined: bool = False
    left_at: float | None = None  # when the last of its workers left
    missed: int = 0
    unwanted: bool = False  # we have cancelled it
    log: str = ""  # where its log is and how it ends, once it has ended
    lost: bool = False  # we have cancelled it, as its workers had gone

    @property
    def ended(self) -> bool:
        return self.state.phase == "ended"


class JobBook:
    """The jobs of one cluster. Every method may be called from any thread.

    Parameters
    ----------
    logs : Path
        Folder of the jobs' logs.
    lost_after : float
        Seconds after which a job without workers, which had some, is taken for lost.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(
        self, logs: Path, lost_after: float = 15.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.address = ""  # of the scheduler
        self.wake = threading.Event()  # set when the queue should be asked now
        self.closing = threading.Event()
        self._logs, self._lost_after, self._clock = logs, lost_after, clock
        self._lock = threading.Lock()  # guards all below
        self.looked = threading.Condition(self._lock)
        self.looks = 0
        self._jobs: dict[str, Job] = {}  # by name
        self._homes: dict[str, Job] = {}  # by the address of a worker, also of one that left
        self._early: list[Job] = []  # ended without a worker, since the last one joined
        self._refusals: list[str] = []  # since the last job that was taken
        self._not_before = 0.0
        self._silence = ""
        self.failed = False  # whether any job ended otherwise than it was meant to

    # --- what happens ----------------------------------------------------------------------------

    def submitted(self, name: str, job: str) -> None:
        """Note that the queue has taken a job."""
        with self._lock:
            self._jobs[name] = Job(name, job, self._clock())
            self._refusals.clear()
            self._forget()
            self.wake.set()

    def refused(self, why: str) -> None:
        """Note that the queue has not taken a job."""
        with self._lock:
            self._refusals.append(why)
            self._back_off(len(self._refusals))

    def joined(self, address: str, worker: str) -> None:
        """Note that a worker has come."""
        with self._lock:
            job = self._job_of(worker)
            if job is not None:
                self._homes[address] = job
                job.workers.add(address)
                job.joined, job.left_at = True, None
                self.looked.notify_all()
                self._early.clear()
                self._not_before = 0.0

    def left(self, address: str) -> None:
        """Note that a worker has gone."""
        with self._lock:
            job = self._homes.get(address)
            if job is not None:
                job.workers.discard(address)
                self.looked.notify_all()
                if not job.workers and not job.unwanted:
                    job.left_at = self._clock()
                    self.wake.set()

    def cancelled(self, name: str) -> bool:
        """Note that we do not want a job any more; tell whether it may be in the queue."""
        with self._lock:
            job = self._jobs.get(name)
            if job is None:
                return False
            job.lost |= not job.ended and self._is_lost(job)
            job.unwanted = True
            return not job.ended or job.state.stays

    def look(self, states: Mapping[str, JobState]) -> None:
        """Note what the queue says of the jobs that it was asked for."""
        with self._lock:
            self._silence = ""
            open_ = [job for job in self._jobs.values() if not job.ended]
            over = [job for job in open_ if self._seen(job, states.get(job.id))]
        tails = {job.name: log_tail(self._logs, job.id) for job in over if not job.unwanted}
        with self.looked:
            for job in over:
                job.log = tails.get(job.name, "")
                if not job.joined and not job.unwanted:
                    self._early.append(job)
                    self._back_off(len(self._early))
                self.failed |= not job.unwanted
            self.looks += 1
            self.looked.notify_all()

    def silent(self, why: str) -> None:
        """Note that the queue did not answer."""
        with self.looked:
            self._silence = why
            self.looks += 1
            self.looked.notify_all()

    def _seen(self, job: Job, state: JobState | None) -> bool:
        """Take what the queue says of a job; tell whether it has ended."""
        if state is None:  # a queue may not have it yet, and the accounting writes late
            job.missed += 1
            if job.missed < _MISSED:
                return False
            state = GONE
        else:
            job.missed = 0
        if job.lost and state.phase == "ended":  # by us: not what was wrong with it
            state = JobState("ended", job.state.words)
        job.state = state
        if state.phase == "running" and job.running_since is None:
            job.running_since = self._clock()
        return job.ended

    def _back_off(self, failures: int) -> None:
        """Do not submit at once again: a queue must not be flooded with what cannot work."""
        self._not_before = self._clock() + min(300.0, 2.0 ** min(failures - 2, 10))

    def _forget(self) -> None:
        old = [name for name, job in self._jobs.items() if job.ended]
        for name in old[: max(0, len(old) - _REMEMBERED)]:
            del self._jobs[name]
        gone = {id(job) for job in self._jobs.values()}
        if len(self._homes) > 4 * _REMEMBERED:
            self._homes = {a: job for a, job in self._homes.items() if id(job) in gone}

    def _job_of(self, worker: str) -> Job | None:
        job = self._jobs.get(worker)
        # Workers of a job that has several are called after it, "-0", "-1" ... added.
        return job if job is not None else self._jobs.get(worker.rpartition("-")[0])

    # --- what follows ----------------------------------------------------------------------------

    def in_queue(self) -> list[str]:
        """Return the ids of the jobs that may be in the queue."""
        with self._lock:
            return [job.id for job in self._jobs.values() if not job.ended or job.state.stays]

    def to_watch(self) -> list[str]:
        """Return the ids of the jobs whose end is not known."""
        with self._lock:
            return [job.id for job in self._jobs.values() if not job.ended]

    def next_look(self) -> float:
        """Return the seconds after which the queue should be asked again.

        Soon after a submission, when a job may start, or die; seldom when all is as it should.
        """
        with self._lock:
            open_ = [job for job in self._jobs.values() if not job.ended]
            if open_ and all(job.workers for job in open_):
                return 15.0
            if any(job.left_at is not None and not job.workers for job in open_):
                return 1.0
            newest = max((job.since for job in open_), default=self._clock())
            return 2.0 if self._clock() - newest < 60 else 5.0

    def to_drop(self) -> list[str]:
        """Return the names of the jobs that have ended, or have lost their workers for good."""
        with self._lock:
            return [
                job.name
                for job in self._jobs.values()
                if not job.unwanted and (job.ended or self._is_lost(job))
            ]

    def _is_lost(self, job: Job) -> bool:
        return job.left_at is not None and self._clock() - job.left_at > self._lost_after

    def addresses(self, names: Iterable[str]) -> list[str]:
        """Return the addresses of the workers that jobs have now."""
        with self._lock:
            jobs = [self._jobs[name] for name in names if name in self._jobs]
            return [address for job in jobs for address in job.workers]

    def may_submit(self) -> bool:
        """Tell whether another job may be asked for now."""
        with self._lock:
            return (
                not self.closing.is_set()
                and self._hopeless() is None
                and self._clock() >= self._not_before
            )

    def refusals(self) -> list[str]:
        """Return what the queue has said to the jobs that it did not take, since it took one."""
        with self._lock:
            return list(self._refusals)

    def _hopeless(self) -> str | None:
        """Say why no job will ever work, if so: with the lock held."""
        if any(job.workers for job in self._jobs.values()):
            return None
        phases = {job.state.phase for job in self._jobs.values() if not job.unwanted}
        if len(self._early) >= ENOUGH and "running" not in phases:  # whose workers may join
            last = self._early[-1]
            return (
                f"{len(self._early)} jobs in a row ended before their workers joined the "
                f"cluster. The last one, job {last.id}: {last.state.words}{last.log}"
            )
        if len(self._refusals) >= ENOUGH and not phases - {"ended"}:
            return f"the queue refused {len(self._refusals)} jobs in a row: {self._refusals[-1]}"
        return None

    def trouble(self) -> tuple[bool, str]:
        """Say what keeps workers from joining: whether that is final, and what is known."""
        with self._lock:
            hopeless = self._hopeless()
            if hopeless is not None:
                return True, hopeless
            waiting = [
                job
                for job in self._jobs.values()
                if not job.workers and not job.ended and not job.unwanted
            ]
            parts = [tell((job.id, self._words(job)) for job in waiting)]
            if self._early:
                last = self._early[-1]
                parts.append(
                    f"job {last.id} ended before its worker joined: {last.state.words}{last.log}"
                )
            if self._refusals:
                parts.append(f"the queue refused the last job: {self._refusals[-1]}")
            if self._silence:
                parts.append(f"the queue cannot be asked: {self._silence}")
            slow = [job.id for job in waiting if self._is_slow(job)]
        if slow:
            parts.append(
                f"a worker connects to the scheduler at {self.address}: if the hosts of the jobs "
                f"cannot reach that, set `interface`{log_tail(self._logs, slow[0], 4)}"
            )
        return False, "; ".join(filter(None, parts))

    def _is_slow(self, job: Job) -> bool:
        since = job.running_since
        return since is not None and self._clock() - since > _SLOW_START and not job.joined

    def _words(self, job: Job) -> str:
        if job.state.phase != "running" or job.running_since is None:
            return job.state.words
        if job.joined:
            return f"{job.state.words}, its worker gone"
        return f"{job.state.words}, its worker not there yet"

    def fate(self, worker: str) -> str:
        """Return what is known of why a worker, by address or name, has gone; else ""."""
        with self._lock:
            job = self._homes.get(worker) or self._job_of(worker)
            if job is None:
                return ""
            if job.lost:
                return f"its job {job.id} was {job.state.words}, but its worker gone: cancelled"
            if not job.ended and job.workers <= {worker}:
                return f"job {job.id} is {job.state.words}, but its worker has gone"
            if job.ended:
                why = _MEANING.get(job.state.words.split()[0], "")
                quoted = "" if why else job.log
                return f"its job {job.id} ended: {job.state.words}{why}{quoted}"
            words, id_ = job.state.words, job.id
        said = process_end(self._logs, id_)
        return f"{said or 'its process ended'}; job {id_} goes on, {words}"

    def settled(self, worker: str) -> bool:
        """Tell whether nothing is to be learnt about a worker that has gone."""
        with self._lock:
            job = self._homes.get(worker) or self._job_of(worker)
            if job is None or job.ended or job.lost:
                return True
            return worker not in job.workers and bool(job.workers)  # another has its place


_MEANING = {
    "CANCELLED": ", by its user or an administrator",
    "TIMEOUT": ", its walltime was over",
    "NODE_FAIL": ", its host failed",
    "PREEMPTED": ", for a job of higher priority",
    "OUT_OF_MEMORY": ", it used more memory than it had asked for",
}
