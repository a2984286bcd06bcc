"""The commands of each queue: what they read, and how they word their answers."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from fakeq import Job, folder, jobs, load, mode, next_number, remove, start

Command = Callable[[list[str]], int]

HOST = "node01"


def command(name: str, arguments: list[str]) -> int:
    """Do what the command of this name does; return its exit code."""
    return _COMMANDS[name](arguments)


def fail(text: str, code: int = 1) -> int:
    print(text, file=sys.stderr)
    return code


def numbers(arguments: list[str]) -> list[str]:
    return [argument for argument in arguments if re.match(r"\d", argument)]


def find(text: str) -> Job | None:
    """The job that an id such as ``101``, ``101.fakeq`` or ``101.0`` names."""
    return load(int(text.partition(".")[0]))


def kept(number: int, text: str) -> str:
    """Keep a script, whose file its owner may remove at once."""
    path = folder() / f"{number}.sh"
    path.write_text(text)
    return str(path)


def directives(text: str, mark: str, known: str) -> list[tuple[str, str]]:
    """The option letters and values of the lines that begin with `mark`.

    Raises
    ------
    ValueError
        The option is not one of the queue's: the message is the line.
    """
    found = []
    for line in text.splitlines():
        if line.startswith(mark + " "):
            match = re.fullmatch(rf"-({known})(?:\s+(\S.*))?", line[len(mark) :].strip())
            if match is None:
                raise ValueError(line)
            found.append((match[1], (match[2] or "").strip().strip('"')))
    return found


def ended(job: Job) -> tuple[int, int]:
    """Exit code and signal."""
    return (0, -job.code) if job.code < 0 else (job.code, 0)


# --- PBS and Moab --------------------------------------------------------------------------------

_PBS_OPTIONS = "[AaCcehIJjklMmNnopqrSuVvWXzP]"


def _submit_pbs(name: str, mark: str, kind: str, arguments: list[str]) -> Job | int:
    refusal = mode("reject")
    if refusal is not None:
        return fail(f"{name}: {refusal}", 166)
    text = Path(arguments[-1]).read_text()
    try:
        options = directives(text, mark, _PBS_OPTIONS)
    except ValueError as exc:
        return fail(f"{name}: illegal option in: {exc}", 2)
    told = dict(options)
    for letter, value in options:
        if letter == "l" and not re.fullmatch(r"[\w.]+=\S+", value):
            return fail(f"{name}: Illegal attribute or resource value: {value}", 169)
    number = next_number()
    paths = []
    for letter, ending in (("o", "OU"), ("e", "ER")):
        path = told.get(letter) or "./"
        path += f"{number}.fakeq.{ending}" if path.endswith("/") else ""
        paths.append(os.path.abspath(path))
    env = {"PBS_JOBID": f"{number}.fakeq", "PBS_O_WORKDIR": os.getcwd()}
    job = Job(
        number, kind, told.get("N", "STDIN"), told.get("q", "workq"),
        ["/bin/bash", kept(number, text)], *paths, env, os.getcwd(),
    )  # fmt: skip
    start(job)
    return job


def qsub(arguments: list[str]) -> int:
    job = _submit_pbs("qsub", "#PBS", "pbs", arguments)
    if isinstance(job, int):
        return job
    print(f"{job.number}.fakeq")
    return 0


def qstat(arguments: list[str]) -> int:
    history, code = "-x" in arguments, 0
    for text in numbers(arguments):
        job = find(text)
        if job is None:
            code = fail(f"qstat: Unknown Job Id {text}", 153)
        elif job.ended and not history:
            code = fail(f"qstat: {text} Job has finished, use -x or -H to obtain history", 35)
        else:
            _print_pbs(job)
    return code


def _print_pbs(job: Job) -> None:
    state = {"waiting": "Q", "running": "R", "ended": "F"}[job.phase]
    lines = [
        f"Job Id: {job.number}.fakeq",
        f"    Job_Name = {job.name}",
        f"    queue = {job.queue}",
    ]
    lines.append(f"    job_state = {state}")
    if state == "R":
        lines.append(f"    exec_host = {HOST}/0")
    elif state == "Q":
        lines.append(f"    comment = {mode('hold') or 'Not Running: about to start'}")
    else:
        code, number = ended(job)
        lines.append(f"    Exit_status = {256 + number if number else code}")
    # Long values go on in another line, which begins with a tab.
    lines.append(f"    Variable_List = PBS_O_WORKDIR={job.cwd[:40]}\n\t{job.cwd[40:]}")
    print("\n".join(lines) + "\n")


def qdel(arguments: list[str]) -> int:
    return _remove(arguments, "qdel: Unknown Job Id {}", "qdel: Job has finished {}", 153)


def _remove(arguments: list[str], unknown: str, over: str, code: int, said: str = "") -> int:
    result = 0
    for text in numbers(arguments):
        job = find(text)
        if job is None or job.ended:
            result = fail((unknown if job is None else over).format(text), code)
            continue
        remove(job)
        if said:
            print(said.format(text))
    return result


def msub(arguments: list[str]) -> int:
    job = _submit_pbs("msub", "#PBS", "moab", arguments)
    if isinstance(job, int):
        return job
    print(f"\n{job.number}")
    return 0


def checkjob(arguments: list[str]) -> int:
    code = 0
    for text in numbers(arguments):
        job = find(text)
        if job is None:
            code = fail(f"ERROR:  invalid job specified: {text}")
            continue
        state = {"waiting": "Idle", "running": "Running", "ended": "Completed"}[job.phase]
        state = "Removed" if job.removed and job.ended else state
        print(f"job {job.number}\n\nAName: {job.name}\nState: {state}")
        if job.ended:
            print(f"Completion Code: {ended(job)[0] or ended(job)[1]}")
        elif mode("hold"):
            print(f"NOTE:  {mode('hold')}")
    return code


def canceljob(arguments: list[str]) -> int:
    words = "ERROR:  invalid job specified ({})"
    return _remove(arguments, words, words, 1, "job '{}' cancelled")


# --- LSF -----------------------------------------------------------------------------------------

_LSF_OPTIONS = "J|q|P|W|n|M|R|e|o|eo|oo|G|gpu|x|app|u|N|B|alloc_flags|nnodes|m|L|cwd|env|U|g|sla"


def bsub(arguments: list[str]) -> int:
    refusal = mode("reject")
    if refusal is not None:
        return fail(f"{refusal}. Job not submitted.", 255)
    text = Path(arguments[-1]).read_text() if arguments else sys.stdin.read()
    try:
        told = dict(directives(text, "#BSUB", _LSF_OPTIONS))
    except ValueError as exc:
        return fail(f"{str(exc).split()[1]}: Illegal option. Job not submitted.", 255)
    if not re.fullmatch(r"\d+", told.get("n", "1")):
        return fail(f"{told['n']}: Illegal job slot number. Job not submitted.", 255)
    number = next_number()
    paths = [
        os.path.abspath(told.get(letter, f"lsf.%J.{letter}").replace("%J", str(number)))
        for letter in "oe"
    ]
    queue = told.get("q", "normal")
    env = {"LSB_JOBID": str(number)}
    start(Job(
        number, "lsf", told.get("J", ""), queue, ["/bin/bash", kept(number, text)], *paths, env,
        os.getcwd(),
    ))  # fmt: skip
    which = "queue" if "q" in told else "default queue"
    print(f"Job <{number}> is submitted to {which} <{queue}>.")
    return 0


def bjobs(arguments: list[str]) -> int:
    form, ids = arguments[arguments.index("-o") + 1], numbers(arguments)
    names = form.partition("delimiter=")[0].split()
    mark = form.partition("delimiter=")[2].strip("'") or " "
    code = 0
    for text in ids:
        job = find(text)
        if job is None or (job.ended and "-a" not in arguments):
            code = fail(f"Job <{text}> is not found", 255)
            continue
        state = {"waiting": "PEND", "running": "RUN", "ended": "DONE"}[job.phase]
        state = "EXIT" if job.ended and job.code else state
        exit_code, number = ended(job)
        values = {
            "jobid": str(job.number),
            "stat": state,
            "exit_code": str(128 + number if number else exit_code) if state == "EXIT" else "-",
            "exec_host": HOST if state == "RUN" else "-",
            "pend_reason": (mode("hold") or "New job is waiting for scheduling")
            if state == "PEND"
            else "-",
        }
        print(mark.join(values[name] for name in names))
    return code


def bkill(arguments: list[str]) -> int:
    return _remove(
        arguments,
        "Job <{}>: No matching job found",
        "Job <{}>: Job has already finished",
        255,
        "Job <{}> is being terminated",
    )


# --- HTCondor ------------------------------------------------------------------------------------


def condor_submit(arguments: list[str]) -> int:
    refusal = mode("reject")
    if refusal is not None:
        return fail(f"\nERROR: {refusal}")
    text = Path(arguments[-1]).read_text()
    settings, queued = {}, False
    for line in text.splitlines():
        match = re.fullmatch(r"\s*(\+?[\w.]+)\s*=\s*(.*?)\s*", line)
        if match:
            settings[match[1].lower()] = match[2]
        elif re.fullmatch(r"\s*queue\s*", line, re.IGNORECASE):
            queued = True
        elif line.strip() and not line.startswith("#"):
            return fail(f"\nERROR: on Line of submit file: {line}")
    if not queued or "executable" not in settings:
        return fail("\nERROR: no 'Executable' or no 'Queue' in the submit file")
    number = next_number()
    settings |= {"clusterid": str(number), "procid": "0"}
    paths = [_expand(settings.get(key, os.devnull), settings) for key in ("output", "error")]
    words = settings.get("arguments", "")
    start(Job(
        number, "htcondor", settings.get("batch_name", ""), "",
        [settings["executable"], *_condor_words(words)], *paths, {}, os.getcwd(),
    ))  # fmt: skip
    print(f"Submitting job(s).\n1 job(s) submitted to cluster {number}.")
    return 0


def _expand(text: str, settings: dict[str, str]) -> str:
    """Put in what ``$(name)`` stands for, and ``$F(name)`` without its quotes."""

    def value(match: re.Match[str]) -> str:
        found = _expand(settings.get(match[2].lower(), ""), settings)
        return found.strip('"') if match[1] else found

    return re.sub(r"\$(F?)\(([\w.]+)\)", value, text)


def _condor_words(text: str) -> list[str]:
    """Split arguments in HTCondor's new syntax: ``"..."``, within it words and ``'words'``."""
    if not text.startswith('"'):
        return text.split()
    inner = text[1:-1].replace('""', '"')
    words, word, quoted, begun, i = [], "", False, False, 0
    while i < len(inner):
        char = inner[i]
        if char == "'" and quoted and inner[i + 1 : i + 2] == "'":
            word, i = word + "'", i + 1
        elif char == "'":
            quoted, begun = not quoted, True
        elif char.isspace() and not quoted:
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word, begun = word + char, True
        i += 1
    return [*words, word] if begun else words


def _ads(arguments: list[str], over: bool) -> int:
    attributes = arguments[arguments.index("-attributes") + 1]
    wanted = {text.partition(".")[0] for text in numbers(_without_values(arguments))}
    ads = [
        {name: value for name, value in _ad(job).items() if name in attributes.split(",")}
        for job in jobs()
        if str(job.number) in wanted and bool(job.ended) == over
    ]
    if ads:
        print(json.dumps(ads, indent=2))
    return 0


def _without_values(arguments: list[str]) -> list[str]:
    limit = arguments.index("-limit") if "-limit" in arguments else len(arguments)
    return arguments[:limit] + arguments[limit + 2 :]


def _ad(job: Job) -> dict[str, object]:
    status = {"waiting": 1, "running": 2, "ended": 3 if job.removed else 4}[job.phase]
    ad: dict[str, object] = {"ClusterId": job.number, "ProcId": 0, "JobStatus": status}
    code, number = ended(job)
    if status == 2:
        ad["RemoteHost"] = f"slot1@{HOST}"
    elif status == 3:
        ad["RemoveReason"] = "via condor_rm"
    elif status == 4:
        ad |= {"ExitSignal": number} if number else {"ExitCode": code}
    return ad


def condor_q(arguments: list[str]) -> int:
    return _ads(arguments, over=False)


def condor_history(arguments: list[str]) -> int:
    return _ads(arguments, over=True)


def condor_rm(arguments: list[str]) -> int:
    words = "Couldn't find/remove all jobs matching {}"
    return _remove(arguments, words, words, 1, "Job {} marked for removal")


_COMMANDS: dict[str, Command] = {
    "qsub": qsub, "qstat": qstat, "qdel": qdel,
    "msub": msub, "checkjob": checkjob, "canceljob": canceljob,
    "bsub": bsub, "bjobs": bjobs, "bkill": bkill,
    "condor_submit": condor_submit, "condor_q": condor_q,
    "condor_history": condor_history, "condor_rm": condor_rm,
}  # fmt: skip
