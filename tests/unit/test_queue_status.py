"""What the answers of batch queues mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from daskexec.kinds import _queue_status as status
from daskexec.kinds._queue_status import JobState, QueueSilent, Said, ask, run


def answers(told: dict[str, Said]) -> Callable[[Sequence[str]], Said]:
    """A runner for which a command, by how it begins, says what is given."""

    def say(command: Sequence[str]) -> Said:
        line = " ".join(command)
        return next((said for start, said in told.items() if line.startswith(start)), _NOTHING)

    return say


_NOTHING = Said("", 127, "", "not found")


def says(out: str, err: str = "", code: int = 0) -> Said:
    return Said("command", code, out, err)


def test_slurm() -> None:
    """Slurm's states, with reasons and hosts; ended jobs with their exit codes."""
    told = answers({
        "squeue": says(
            "1|PENDING|Priority|\n2|RUNNING|None|n[1-2]\n3|FAILED|NonZeroExitCode|n1\n"
            "4|CANCELLED|PartitionDown|\n5|TIMEOUT|TimeLimit|n1\n6|CONFIGURING|None|n1\n"
        ),
        "scontrol -o show job 3": says("JobId=3 JobState=FAILED ExitCode=127:0 Nice=0"),
        "sacct -n -X -P -o JobID,State,ExitCode -j 7": says("7|CANCELLED by 1000|0:0\n"),
    })  # fmt: skip
    assert ask("slurm", list("12345678"), told) == {
        "1": JobState("waiting", "PENDING (Priority)"),
        "2": JobState("running", "RUNNING on n[1-2]"),
        "3": JobState("ended", "FAILED (exit code 127)"),
        "4": JobState("ended", "CANCELLED"),
        "5": JobState("ended", "TIMEOUT"),
        "6": JobState("waiting", "CONFIGURING"),
        "7": JobState("ended", "CANCELLED by 1000"),
    }


def test_slurm_knows_none() -> None:
    """Jobs that Slurm has forgotten are missing; that is no failure."""
    told = answers({
        "squeue": says("", "slurm_load_jobs error: Invalid job id specified", 1)
    })  # fmt: skip
    assert ask("slurm", ["9"], told) == {}


@pytest.mark.parametrize("kind", ["slurm", "pbs", "sge", "lsf", "oar", "htcondor", "moab"])
def test_a_queue_that_does_not_answer(kind: str) -> None:
    """A command that fails is told from a queue without the jobs."""
    with pytest.raises(QueueSilent, match="fails: Unable to contact the controller"):
        ask(
            kind,
            ["1"],
            lambda command: Said(command[0], 1, "", "Unable to contact the controller"),
        )


def test_pbs() -> None:
    """PBS Pro's full listing, with comments that go over lines; servers' names do not matter."""
    listing = (
        "Job Id: 1.pbs.site.org\n    Job_Name = dask-worker\n    job_state = Q\n"
        "    comment = Not Running: Insufficient amount of resource: \n\tncpus \n\n"
        "Job Id: 2.pbs\n    job_state = R\n    exec_host = node7/0*16\n\n"
        "Job Id: 3.pbs\n    job_state = F\n    Exit_status = 127\n    comment = failed\n"
    )
    told = answers({"qstat -x -f": says(listing, "qstat: Unknown Job Id 4.pbs", 153)})
    assert ask("pbs", ["1.pbs", "2.pbs.site.org", "3.pbs", "4.pbs"], told) == {
        "1.pbs": JobState(
            "waiting", "QUEUED (Not Running: Insufficient amount of resource: ncpus )"
        ),
        "2.pbs.site.org": JobState("running", "RUNNING on node7/0*16"),
        "3.pbs": JobState("ended", "FINISHED (exit code 127)"),
    }


def test_torque() -> None:
    """Where -x asks for XML the plain full listing is read."""
    told = answers({
        "qstat -x -f": says("<Data><Job/></Data>"),
        "qstat -f": says("Job Id: 1.host\n    job_state = C\n    exit_status = 1\n"),
    })  # fmt: skip
    assert ask("pbs", ["1.host"], told) == {"1.host": JobState("ended", "COMPLETED (exit code 1)")}


def test_moab() -> None:
    """Moab's checkjob, one job at a time."""
    told = answers({
        "checkjob 1": says("job 1\n\nState: Idle\nNOTE:  job violates constraints\n"),
        "checkjob 2": says("State: Running \n"),
        "checkjob 3": says("State: Completed\nCompletion Code: 9  Time: now\n"),
        "checkjob 4": says("", "ERROR:  invalid job specified: 4", 1),
    })  # fmt: skip
    assert ask("moab", list("1234"), told) == {
        "1": JobState("waiting", "Idle (job violates constraints)"),
        "2": JobState("running", "Running"),
        "3": JobState("ended", "Completed (exit code 9)"),
    }


def test_sge() -> None:
    """Grid Engine's table, the reasons of waiting jobs, and its accounting of ended ones."""
    table = (
        "job-ID  prior   name       user         state submit/start at     queue\n"
        "-----------------------------------------------------------------------\n"
        "      1 0.50000 dask-worke root         qw    11/26/2026 17:01:40      1\n"
        "      2 0.50000 dask-worke root         r     11/26/2026 17:01:40 all.q@host7   1\n"
        "      3 0.50000 dask-worke root         Eqw   11/26/2026 17:01:40      1\n"
    )
    told = answers({
        "qstat -u": says(table),
        "qstat -j 1": says("scheduling info:            All queues dropped: full\n"),
        "qstat -j 3": says(
            "error reason          1:      11/26/2026 17:01:41 [0:837]: error: can't open x\n"
        ),
        "qacct -j 4": says("failed       0    \nexit_status  127                 \n"),
        "qacct -j 5": says("failed       100 : assumedly after job\nexit_status  137   \n"),
        "qacct": says("", "error: job id 6 not found", 1),
    })  # fmt: skip
    assert ask("sge", list("123456"), told) == {
        "1": JobState("waiting", "qw (All queues dropped: full)"),
        "2": JobState("running", "r on host7"),
        "3": JobState("ended", "Eqw (error: can't open x)", stays=True),
        "4": JobState("ended", "ended (exit code 127)"),
        "5": JobState("ended", "failed (assumedly after job)"),
    }


def test_lsf() -> None:
    """LSF's own format; the plain table of one that does not know it."""
    told = answers({
        "bjobs -a -noheader": says(
            "1|PEND|-|-|New job is waiting for scheduling\n2|RUN|-|host7|\n3|EXIT|127|host7|-\n",
            "Job <4> is not found",
        )
    })  # fmt: skip
    assert ask("lsf", list("1234"), told) == {
        "1": JobState("waiting", "PEND (New job is waiting for scheduling)"),
        "2": JobState("running", "RUN on host7"),
        "3": JobState("ended", "EXIT (exit code 127)"),
    }
    old = answers({
        "bjobs -a -noheader": says("", "Illegal option -- noheader", 255),
        "bjobs -a -w": says("JOBID USER STAT QUEUE\n1 me PEND normal\n2 me DONE normal\n"),
    })  # fmt: skip
    assert ask("lsf", list("12"), old) == {
        "1": JobState("waiting", "PEND"),
        "2": JobState("ended", "DONE"),
    }


def test_oar() -> None:
    """OAR's JSON; its exit codes are those of wait(2)."""
    told = answers({
        "oarstat": says(
            '{"1": {"state": "Waiting", "message": "R=4,W=2:0:0"},'
            ' "2": {"state": "Running", "assigned_network_address": ["node7"]},'
            ' "3": {"state": "Error", "exit_code": "32512 (127,0,0)"},'
            ' "4": {"state": "Terminated", "exit_code": 9},'
            ' "5": {"state": "Terminated", "exit_code": 0}}'
        )
    })  # fmt: skip
    assert ask("oar", list("12345"), told) == {
        "1": JobState("waiting", "Waiting (R=4,W=2:0:0)"),
        "2": JobState("running", "Running on node7"),
        "3": JobState("ended", "Error (exit code 127)"),
        "4": JobState("ended", "Terminated (signal 9)"),
        "5": JobState("ended", "Terminated"),
    }


def test_htcondor() -> None:
    """HTCondor's job ads, and its history for those that have left the queue."""
    told = answers({
        "condor_q": says(
            '[{"ClusterId": 1, "ProcId": 0, "JobStatus": 1},'
            ' {"ClusterId": 2, "ProcId": 0, "JobStatus": 2, "RemoteHost": "slot1@host7"},'
            ' {"ClusterId": 3, "ProcId": 0, "JobStatus": 5, "HoldReason": "no such file"}]'
        ),
        "condor_history": says(
            '[{"ClusterId": 4, "ProcId": 0, "JobStatus": 4, "ExitCode": 127},'
            ' {"ClusterId": 5, "ProcId": 0, "JobStatus": 3, "RemoveReason": "via condor_rm"}]'
        ),
    })  # fmt: skip
    assert ask("htcondor", ["1.0", "2.0", "3.0", "4.0", "5.0"], told) == {
        "1.0": JobState("waiting", "IDLE"),
        "2.0": JobState("running", "RUNNING on slot1@host7"),
        "3.0": JobState("waiting", "HELD (no such file)"),
        "4.0": JobState("ended", "COMPLETED (exit code 127)"),
        "5.0": JobState("ended", "REMOVED (via condor_rm)"),
    }


def test_tell() -> None:
    """Jobs of which the same is said are named together, and not more of them than one reads."""
    jobs = [(str(number), "PENDING (Priority)") for number in range(6)] + [("9", "RUNNING")]
    assert status.tell(jobs) == "jobs 0, 1, 2, 3 and 2 more: PENDING (Priority); job 9: RUNNING"


def test_run() -> None:
    """A command's end is told whatever it is: its words, its absence, its silence."""
    assert run(["sh", "-c", "echo yes; echo no >&2; exit 3"]) == Said(
        "sh -c echo yes; echo no >&2; exit 3", 3, "yes\n", "no"
    )
    assert run(["nosuchcommand"]).err == "nosuchcommand: No such file or directory"
    assert run(["sleep", "60"], patience=0.1).err == "no answer within 0.1 s"
