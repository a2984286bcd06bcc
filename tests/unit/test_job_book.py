"""What follows from what is known of the jobs of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from daskexec.kinds._job_book import JobBook
from daskexec.kinds._queue_status import JobState

PENDING = JobState("waiting", "PENDING (Priority)")
RUNNING = JobState("running", "RUNNING on n1")
FAILED = JobState("ended", "FAILED (exit code 127)")
CANCELLED = JobState("ended", "CANCELLED")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> JobBook:
    return JobBook(tmp_path, lost_after=15.0, clock=clock)


def test_a_waiting_job(book: JobBook) -> None:
    """While a job waits, the trouble is what the queue says of it; when it works there is none."""
    book.submitted("w-0", "12")
    book.look({"12": PENDING})
    assert book.trouble() == (False, "job 12: PENDING (Priority)")
    book.look({"12": RUNNING})
    book.joined("tls://n1:1", "w-0")
    assert book.trouble() == (False, "")
    assert book.to_drop() == []


def test_jobs_that_die_early(book: JobBook, tmp_path: Path) -> None:
    """The third job in a row that ends before its worker joins is final; its log is quoted."""
    (tmp_path / "dask-worker-3.err").write_text("line 1\n\nno such python\n")
    (tmp_path / "dask-worker-33.err").write_text("of another job\n")
    for number in (1, 2, 3):
        assert not book.trouble()[0]
        book.submitted(f"w-{number}", str(number))
        book.look({str(number): FAILED})
    final, said = book.trouble()
    assert final
    assert "job 3: FAILED (exit code 127)" in said
    assert said.endswith("dask-worker-3.err ends:\n    line 1\n    no such python")
    assert not book.may_submit()


def test_a_job_that_runs_may_make_good(book: JobBook) -> None:
    """However many have died early, a job that runs is waited for."""
    for number in range(5):
        book.submitted(f"w-{number}", str(number))
    states = {str(number): FAILED for number in range(4)}
    book.look({**states, "4": RUNNING})
    assert not book.trouble()[0]
    book.look({"4": FAILED})
    assert book.trouble()[0]


def test_a_worker_that_joins_makes_good(book: JobBook) -> None:
    """Early deaths are forgotten when a worker joins."""
    for number in (1, 2):
        book.submitted(f"w-{number}", str(number))
        book.look({str(number): FAILED})
    book.submitted("w-3", "3")
    book.joined("tls://n1:1", "w-3")
    book.submitted("w-4", "4")
    book.look({"3": RUNNING, "4": FAILED})
    assert not book.trouble()[0]


def test_submitting_again_is_put_off(book: JobBook, clock: Clock) -> None:
    """After a job that died, or was refused, others are not submitted at once."""
    book.refused("over the limit")
    assert not book.may_submit()
    assert book.trouble() == (False, "the queue refused the last job: over the limit")
    clock.now += 1
    assert book.may_submit()
    book.refused("over the limit")
    book.refused("over the limit")
    assert book.trouble() == (True, "the queue refused 3 jobs in a row: over the limit")


def test_refused_beside_others(book: JobBook, clock: Clock) -> None:
    """Refusals are not final where there are jobs: the queue may have a limit of them."""
    book.submitted("w-0", "1")
    for _ in range(5):
        book.refused("over the limit")
    assert not book.trouble()[0]
    clock.now += 299
    assert book.may_submit()


def test_a_job_that_ends_is_dropped(book: JobBook) -> None:
    """A job that has ended is to be replaced, and its worker's fate is known, by both names."""
    book.submitted("w-0", "12")
    book.joined("tls://n1:1", "w-0")
    book.look({"12": RUNNING})
    book.wake.clear()
    book.left("tls://n1:1")
    assert book.wake.is_set()
    assert not book.settled("tls://n1:1")
    book.look({"12": CANCELLED})
    assert book.to_drop() == ["w-0"]
    assert book.settled("tls://n1:1")
    assert "its job 12 ended: CANCELLED" in book.fate("tls://n1:1")
    assert book.fate("w-0") == book.fate("tls://n1:1")
    assert not book.cancelled("w-0")  # nothing is in the queue
    assert book.to_drop() == []


def test_a_job_whose_worker_is_lost(book: JobBook, clock: Clock) -> None:
    """A job that runs on without its workers is dropped after a time, and cancelled."""
    book.submitted("w-0", "12")
    for number in (0, 1):
        book.joined(f"tls://n1:{number}", f"w-0-{number}")
    book.look({"12": RUNNING})
    book.left("tls://n1:0")
    clock.now += 60
    assert book.to_drop() == []  # one of its two workers is there
    book.left("tls://n1:1")
    clock.now += 14
    assert book.to_drop() == []
    clock.now += 2
    assert book.to_drop() == ["w-0"]
    assert book.cancelled("w-0")
    book.look({"12": CANCELLED})
    assert book.fate("w-0-1") == "its job 12 was RUNNING on n1, but its worker gone: cancelled"


def test_a_job_that_the_queue_forgets(book: JobBook) -> None:
    """A job that is missing once may be new, or its end not yet written; twice, it is over."""
    book.submitted("w-0", "12")
    book.look({})
    assert book.to_watch() == ["12"]
    book.look({})
    assert book.to_watch() == []
    assert book.to_drop() == ["w-0"]


def test_a_job_in_error_state(book: JobBook) -> None:
    """A job that will never run, but stays in the queue, counts as ended and is cancelled."""
    book.submitted("w-0", "12")
    book.look({"12": JobState("ended", "Eqw (no file)", stays=True)})
    assert book.in_queue() == ["12"]
    assert book.to_drop() == ["w-0"]
    assert book.cancelled("w-0")


def test_a_job_that_we_end(book: JobBook) -> None:
    """A job that was cancelled by us is no early death."""
    for number in range(5):
        book.submitted(f"w-{number}", str(number))
        assert book.cancelled(f"w-{number}")
        book.look({str(number): CANCELLED})
    assert book.trouble() == (False, "")
    assert not book.failed


def test_a_slow_start(book: JobBook, clock: Clock, tmp_path: Path) -> None:
    """Of a job that runs long without its worker joining, the address it needs is told."""
    book.address = "tls://10.0.0.1:8786"
    book.submitted("w-0", "12")
    book.look({"12": RUNNING})
    assert book.trouble() == (False, "job 12: RUNNING on n1, its worker not there yet")
    clock.now += 30
    (tmp_path / "dask-worker-12.err").write_text("Timed out trying to connect\n")
    final, said = book.trouble()
    assert not final
    assert "tls://10.0.0.1:8786" in said
    assert "Timed out trying to connect" in said


def test_a_queue_that_is_silent(book: JobBook) -> None:
    """That the queue does not answer is told, and changes nothing of the jobs."""
    book.submitted("w-0", "12")
    book.silent("squeue fails: timed out")
    assert book.trouble() == (
        False, "job 12: submitted; the queue cannot be asked: squeue fails: timed out"
    )  # fmt: skip
    assert book.to_watch() == ["12"]


def test_strangers(book: JobBook) -> None:
    """Of workers that belong to no job nothing is known, and nothing is waited for."""
    book.joined("tls://n1:1", "stranger")
    book.left("tls://n1:1")
    assert book.fate("tls://n1:1") == ""
    assert book.settled("tls://n1:1")


def test_a_worker_process_that_crashed(book: JobBook, tmp_path: Path) -> None:
    """Of a process that ended in a job that goes on, its log says how; nothing is waited for."""
    book.submitted("w-0", "12")
    book.joined("tls://n1:1", "w-0")
    book.look({"12": RUNNING})
    book.left("tls://n1:1")
    assert not book.settled("tls://n1:1")
    book.joined("tls://n1:2", "w-0")
    assert book.settled("tls://n1:1")
    assert book.fate("tls://n1:1") == "its process ended; job 12 goes on, RUNNING on n1"
    (tmp_path / "dask-worker-12.err").write_text(
        "2026 - distributed.nanny - INFO - Worker process 99 was killed by signal 11\nmore\n"
    )
    assert book.fate("tls://n1:1") == (
        "Worker process 99 was killed by signal 11; job 12 goes on, RUNNING on n1"
    )
