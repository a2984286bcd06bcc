"""What a batch queue says of jobs: the commands to ask with, and what their answers mean.

`ask` knows one queue's commands; the functions that read their output take text and can be
tested without a queue.
"""

from __future__ import annotations

import getpass
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["GONE", "SUBMITTED", "JobState", "QueueSilent", "Said", "ask", "run", "tell"]

Phase = Literal["waiting", "running", "ended"]

#: Seconds in which a command of the queue must answer.
PATIENCE = 30.0

#: Waiting jobs for which some queues are asked, one by one, why they wait.
_SOME = 3

#: For queues whose listing does not fail where there is no job.
_NEVER = "(?!)"


@dataclass(frozen=True)
class JobState:
    """What the queue says of one job.

    Attributes
    ----------
    phase : {"waiting", "running", "ended"}
    words : str
        The queue's own, such as ``PENDING (Priority)`` or ``FAILED (exit code 127)``.
    stays : bool
        It will never run, yet is in the queue until it is removed.
    """

    phase: Phase
    words: str
    stays: bool = False


#: Of a job that the queue has taken, and was not asked for yet.
SUBMITTED = JobState("waiting", "submitted")

#: Of a job that the queue no longer lists.
GONE = JobState("ended", "ended (the queue says no more of it)")


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    command: str
    code: int
    out: str
    err: str


class QueueSilent(Exception):
    """The queue did not say anything of the jobs; the message is what its command said."""


Runner = Callable[[Sequence[str]], Said]
States = dict[str, JobState]


def run(command: Sequence[str], patience: float = PATIENCE) -> Said:
    """Run a command of the queue, out of reach of Ctrl-C in the terminal; never raises."""
    text = " ".join(command)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=patience,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return Said(text, -1, "", f"no answer within {patience:g} s")
    except OSError as exc:
        return Said(text, 127, "", f"{command[0]}: {exc.strerror}")
    return Said(text, done.returncode, done.stdout, done.stderr.strip())


def ask(kind: str, ids: Sequence[str], run: Runner = run) -> States:
    """Return what the queue says of jobs; those that it does not know are missing.

    Raises
    ------
    QueueSilent
        It did not answer.
    """
    return _ASK[kind](ids, run) if ids else {}


def _answer(said: Said, unknown: str) -> str:
    """Return what a command printed; `unknown` is how it says that it knows none of the jobs."""
    if said.code and not said.out.strip() and not re.search(unknown, said.err, re.IGNORECASE):
        lines = said.err.splitlines() or [f"exit code {said.code}"]
        raise QueueSilent(f"{said.command.split()[0]} fails: {lines[-1]}")
    return said.out


# --- Slurm ---------------------------------------------------------------------------------------

_SLURM_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD"}
_SLURM_RUNNING = {
    "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT",
    "SPECIAL_EXIT", "RESV_DEL_HOLD",
}  # fmt: skip


def _slurm(ids: Sequence[str], run: Runner) -> States:
    said = run(["squeue", "-h", "-t", "all", "-o", "%i|%T|%r|%N", "-j", ",".join(ids)])
    states = read_squeue(_answer(said, "invalid job id"))
    for job in ids:
        state = states.get(job)
        if state is None:  # ended longer ago than the queue remembers: the accounting may know
            told = run(["sacct", "-n", "-X", "-P", "-o", "JobID,State,ExitCode", "-j", job])
            states.update(read_sacct(told.out))
        elif state.phase == "ended" and state.words == "FAILED":
            told = run(["scontrol", "-o", "show", "job", job])
            code = re.search(r"\bExitCode=(\d+):(\d+)", told.out)
            if code is not None:
                states[job] = JobState("ended", f"FAILED{_exit(code[1], code[2])}")
    return states


def read_squeue(text: str) -> States:
    """Read lines of ``id|state|reason|nodes``."""
    states = {}
    for line in text.splitlines():
        if line.count("|") != 3:
            continue
        job, state, reason, nodes = line.split("|")
        if state in _SLURM_WAITING:
            why = f" ({reason})" if reason not in ("", "None") else ""
            states[job] = JobState("waiting", state + why)
        elif state in _SLURM_RUNNING:
            states[job] = JobState("running", f"{state} on {nodes}" if nodes else state)
        else:
            states[job] = JobState("ended", state)
    return states


def read_sacct(text: str) -> States:
    """Read lines of ``id|state|exit:signal``."""
    states = {}
    for line in text.splitlines():
        if line.count("|") == 2:
            job, state, code = line.split("|")
            word = state.split()[0] if state else ""  # "CANCELLED by 1000"
            if word and word not in _SLURM_WAITING | _SLURM_RUNNING:
                number, _, signal = code.partition(":")
                shown = _exit(number, signal) if word == "FAILED" else ""
                states[job] = JobState("ended", state + shown)
    return states


def _exit(code: object, signal: object = "0") -> str:
    if str(signal) not in ("0", ""):
        return f" (signal {signal})"
    return f" (exit code {code})"


# --- PBS, and Torque -----------------------------------------------------------------------------

_PBS = {"Q": "QUEUED", "H": "HELD", "W": "WAITING", "T": "MOVING", "M": "MOVED", "R": "RUNNING",
        "E": "EXITING", "B": "BEGUN", "S": "SUSPENDED", "U": "SUSPENDED", "F": "FINISHED",
        "X": "EXPIRED", "C": "COMPLETED"}  # fmt: skip


def _pbs(ids: Sequence[str], run: Runner) -> States:
    said = run(["qstat", "-x", "-f", *ids])
    if (said.code and "nvalid option" in said.err) or said.out.lstrip().startswith("<"):
        said = run(["qstat", "-f", *ids])  # Torque, where -x asks for XML
    found = read_qstat_full(_answer(said, "unknown job|has finished"))
    # The server's name behind the number may be long in one place and short in the other.
    numbers = {job.partition(".")[0]: state for job, state in found.items()}
    return {job: numbers[n] for job in ids if (n := job.partition(".")[0]) in numbers}


def read_qstat_full(text: str) -> States:
    """Read blocks of ``Job Id: ...`` and ``name = value`` lines."""
    states = {}
    for block in re.split(r"^Job Id:\s*", text.replace("\n\t", ""), flags=re.MULTILINE)[1:]:
        job = block.split(None, 1)[0]
        fields = dict(re.findall(r"^\s+(\w+) = (.*)$", block, re.MULTILINE))
        state = fields.get("job_state", "")
        words = str(_PBS.get(state, state))
        comment, code = fields.get("comment", ""), _first(fields, "Exit_status", "exit_status")
        if state in ("F", "X", "C"):
            states[job] = JobState("ended", words + (_exit(code) if code else ""))
        elif state in ("R", "E", "B", "S", "U"):
            host = fields.get("exec_host", "")
            states[job] = JobState("running", f"{words} on {host}" if host else words)
        else:
            states[job] = JobState("waiting", f"{words} ({comment})" if comment else words)
    return states


def _first(fields: dict[str, str], *names: str) -> str:
    return next((fields[name] for name in names if name in fields), "")


# --- Moab ----------------------------------------------------------------------------------------


def _moab(ids: Sequence[str], run: Runner) -> States:
    states: States = {}
    for job in ids:
        state = read_checkjob(_answer(run(["checkjob", job]), "invalid job|cannot locate"))
        if state is not None:
            states[job] = state
    return states


def read_checkjob(text: str) -> JobState | None:
    """Read what Moab's ``checkjob`` says of one job."""
    state = re.search(r"^State:\s*(\S+)", text, re.MULTILINE)
    if state is None:
        return None
    word = state[1]
    if word in ("Completed", "Removed", "Vacated"):
        code = re.search(r"Completion Code:\s*(-?\d+)", text)
        return JobState("ended", word + (_exit(code[1]) if code else ""))
    if word in ("Running", "Starting", "Suspended"):
        return JobState("running", word)
    why = re.search(r"^(?:BLOCK MSG|NOTE|job cannot run):?\s*(.+)$", text, re.MULTILINE)
    return JobState("waiting", word + (f" ({why[1].strip()})" if why else ""))


# --- Grid Engine ---------------------------------------------------------------------------------


def _sge(ids: Sequence[str], run: Runner) -> States:
    listed = read_qstat(_answer(run(["qstat", "-u", getpass.getuser()]), _NEVER))
    states = {job: listed[job] for job in ids if job in listed}
    for job, state in [*states.items()][:_SOME]:
        if state.phase == "waiting" or state.stays:
            why = read_qstat_job(run(["qstat", "-j", job]).out)
            if why:
                states[job] = JobState(state.phase, f"{state.words} ({why})", state.stays)
    for job in ids:
        if job not in states:
            ended = read_qacct(run(["qacct", "-j", job]).out)
            if ended is not None:
                states[job] = ended
    return states


def read_qstat(text: str) -> States:
    """Read the table of Grid Engine's ``qstat``: the number first, the state fifth."""
    states = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 8 or not fields[0].isdigit():
            continue
        job, state = fields[0], fields[4]
        if "E" in state:
            states[job] = JobState("ended", state, stays=True)
        elif "q" in state:
            states[job] = JobState("waiting", state)
        else:
            host = fields[7].partition("@")[2] if "@" in fields[7] else ""
            states[job] = JobState("running", f"{state} on {host}" if host else state)
    return states


def read_qstat_job(text: str) -> str:
    """Read from ``qstat -j`` why a job waits, or cannot run."""
    match = re.search(r"^(?:error reason\s+\d*|scheduling info):\s*(.+)$", text, re.MULTILINE)
    why = (
        re.sub(r"^\d{2}/\d{2}/\d{4} \d{2}:\d{2}:\d{2} \[[^\]]*\]: ", "", match[1]) if match else ""
    )
    return "" if why.startswith("(Collecting of scheduler job information") else why.strip()


def read_qacct(text: str) -> JobState | None:
    """Read from ``qacct -j`` how a job ended."""
    fields = dict(re.findall(r"^(\w+)\s+(.*?)\s*$", text, re.MULTILINE))
    if "exit_status" not in fields:
        return None
    failed, _, why = fields.get("failed", "0").partition(":")
    if failed.strip() not in ("", "0"):
        return JobState("ended", f"failed ({why.strip() or failed.strip()})")
    return JobState("ended", f"ended{_exit(fields['exit_status'].split()[0])}")


# --- LSF -----------------------------------------------------------------------------------------


def _lsf(ids: Sequence[str], run: Runner) -> States:
    fields = "jobid stat exit_code exec_host pend_reason delimiter='|'"
    said = run(["bjobs", "-a", "-noheader", "-o", fields, *ids])
    if "|" not in said.out and "not found" not in said.err:
        said = run(["bjobs", "-a", "-w", *ids])  # an LSF of before -o
    return read_bjobs(_answer(said, "not found"))


def read_bjobs(text: str) -> States:
    """Read lines of ``id|state|exit code|host|reason``, or the table of plain ``bjobs``."""
    states = {}
    for line in text.splitlines():
        if "|" in line:
            job, state, code, host, why = (f.strip(" -") for f in line.split("|", 4))
        else:
            words = line.split()
            if len(words) < 3 or not words[0].isdigit():
                continue
            job, state, code, host, why = words[0], words[2], "", "", ""
        if state in ("DONE", "EXIT", "ZOMBI"):
            states[job] = JobState("ended", state + (_exit(code) if code else ""))
        elif state in ("PEND", "PSUSP", "WAIT"):
            states[job] = JobState("waiting", state + (f" ({why})" if why else ""))
        else:
            states[job] = JobState("running", f"{state} on {host}" if host else state)
    return states


# --- OAR -----------------------------------------------------------------------------------------


def _oar(ids: Sequence[str], run: Runner) -> States:
    options = [word for job in ids for word in ("-j", job)]
    return read_oarstat(_answer(run(["oarstat", "-f", "-J", *options]), "no job"))


def read_oarstat(text: str) -> States:
    """Read the JSON of ``oarstat``: the jobs by number."""
    states = {}
    for job, fields in _json(text, {}).items():
        state = str(fields.get("state", ""))
        if state in ("Terminated", "Error", "toError"):
            status = re.match(r"\d+", str(fields.get("exit_code") or ""))
            code = int(status[0]) if status else 0  # as of wait(2)
            shown = _exit(code >> 8, code & 0x7F) if code else ""
            states[job] = JobState("ended", state + shown)
        elif state in ("Running", "Finishing", "Suspended", "Resuming"):
            hosts = ", ".join(fields.get("assigned_network_address") or [])
            states[job] = JobState("running", f"{state} on {hosts}" if hosts else state)
        else:
            why = str(fields.get("message") or "")
            states[job] = JobState("waiting", state + (f" ({why})" if why else ""))
    return states


# --- HTCondor ------------------------------------------------------------------------------------

_CONDOR = {1: "IDLE", 2: "RUNNING", 3: "REMOVED", 4: "COMPLETED", 5: "HELD", 6: "RUNNING",
           7: "SUSPENDED"}  # fmt: skip
_CONDOR_FIELDS = (
    "ClusterId,ProcId,JobStatus,HoldReason,RemoveReason,ExitCode,ExitSignal,RemoteHost"
)


def _htcondor(ids: Sequence[str], run: Runner) -> States:
    said = run(["condor_q", "-json", "-attributes", _CONDOR_FIELDS, *ids])
    states = read_condor(_answer(said, _NEVER))
    missing = [job for job in ids if job not in states]
    if missing:
        limit = ["-limit", str(len(missing))]
        history = ["condor_history", "-json", *limit, "-attributes", _CONDOR_FIELDS, *missing]
        states.update(read_condor(run(history).out))
    return states


def read_condor(text: str) -> States:
    """Read the JSON of ``condor_q`` or ``condor_history``: a list of job ads."""
    states = {}
    for ad in _json(text, []):
        job = f"{ad.get('ClusterId')}.{ad.get('ProcId', 0)}"
        number = ad.get("JobStatus")
        word = _CONDOR.get(number, f"status {number}")
        if number in (3, 4):
            why = ad.get("RemoveReason") or ""
            if number == 4:
                why = _exit(ad.get("ExitCode"), ad.get("ExitSignal", "0")).strip(" ()")
            states[job] = JobState("ended", f"{word} ({why})" if why else word)
        elif number in (2, 6, 7):
            host = ad.get("RemoteHost")
            states[job] = JobState("running", f"{word} on {host}" if host else word)
        else:  # a held job stays so until somebody releases it
            why = ad.get("HoldReason") if number == 5 else None
            states[job] = JobState("waiting", f"{word} ({why})" if why else word)
    return states


def _json(text: str, default: Any) -> Any:
    try:
        return json.loads(text or "null") or default
    except ValueError:
        return default


_ASK: dict[str, Callable[[Sequence[str], Runner], States]] = {
    "slurm": _slurm,
    "pbs": _pbs,
    "moab": _moab,
    "sge": _sge,
    "lsf": _lsf,
    "oar": _oar,
    "htcondor": _htcondor,
}


def tell(states: Iterable[tuple[str, str]], most: int = 4) -> str:
    """Word what is said of several jobs, those of which the same is said together."""
    return "; ".join(_told(states, most))


def _told(states: Iterable[tuple[str, str]], most: int) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for job, words in states:
        groups.setdefault(words, []).append(job)
    for words, jobs in groups.items():
        shown = ", ".join(jobs[:most]) + (f" and {len(jobs) - most} more" * (len(jobs) > most))
        yield f"job{'s' if len(jobs) > 1 else ''} {shown}: {words}"
