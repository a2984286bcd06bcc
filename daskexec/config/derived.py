"""What a config for a queue leaves out, and is better said. Floor 1.

dask-jobqueue fills what it is not given from Dask's own configuration (``jobqueue.yaml`` in
``~/.config/dask``, ``/etc/dask`` or ``$DASK_CONFIG``). What is added here is what that does not
say either: a value of ours never takes the place of one that the user has given there, and
where a list is added to, it is that list.
"""

from __future__ import annotations

import difflib
import functools
import re
from pathlib import Path
from typing import Any

from daskexec.config.document import Problems
from daskexec.config.values import walltime_seconds

__all__ = ["WAIT_COUNT", "complete", "leaving", "processes", "unknown_setting"]

#: Looks that find a worker idle before its job is given up; a new one may wait for long.
WAIT_COUNT = 12

_DEATH_TIMEOUT = 120
_DASK_WORKER = "distributed.cli.dask_worker"

# Below these, Dask's settings are whatever the user says.
_OPEN = ("environ", "pre-spawn-environ", "resources", "logging", "default-task-durations")


def complete(
    kind: str, kwargs: dict[str, Any], problems: Problems, line: int, lines: dict[str, int]
) -> float | None:
    """Fill in what is left out of a job's settings, in place; return its walltime in seconds.

    Parameters
    ----------
    kind : str
        Of the queue.
    kwargs : dict
        The checked ``cluster_kwargs``; a value that is wrong is None.
    problems : Problems
        Takes what is missing.
    line : int
        Of the section; and of each key that is in it, `lines`.
    """
    section = kwargs.get("config_name") or kind
    theirs = functools.partial(_theirs, section)
    for key, example in (("cores", "16"), ("memory", "64GiB"), ("disk", "10GB")):
        wanted = key != "disk" or kind == "htcondor"
        if wanted and key not in kwargs and theirs(key) is None:
            problems.add(line, f"{key} is missing: how much has a job of it, such as {example}?")
    if "processes" not in kwargs and theirs("processes") is None:
        kwargs["processes"] = 1  # dask-jobqueue's default would be about the root of cores
    if "death_timeout" not in kwargs and theirs("death-timeout") is None:
        kwargs["death_timeout"] = _DEATH_TIMEOUT
    if kind == "slurm":
        # Slurm submits the job of a failed node again, and Dask, which has started another one
        # by then, cancels it.
        directives = _list(kwargs, "job_extra_directives", theirs, "job-extra")
        if not any(re.search(r"--(no-)?requeue\b", one) for one in directives):
            kwargs["job_extra_directives"] = [*directives, "--no-requeue"]
    seconds = None
    if kind != "htcondor":
        seconds = _walltime(kind, kwargs, theirs, problems, lines.get("walltime", line))
    if seconds is not None:
        _leave_in_time(kwargs, theirs, seconds)
    return seconds


def processes(kind: str, kwargs: dict[str, Any]) -> int:
    """Return how many workers a job has, by the config or by Dask's configuration."""
    found = kwargs.get("processes") or _theirs(kwargs.get("config_name") or kind, "processes")
    return found if isinstance(found, int) else 1


def _walltime(
    kind: str, kwargs: dict[str, Any], theirs: Any, problems: Problems, line: int
) -> float | None:
    given = kwargs.get("walltime") if "walltime" in kwargs else theirs("walltime")
    if "walltime" in kwargs and given is None:
        return None  # it is wrong, and that was said
    if given is None:
        given = "00:30" if kind == "lsf" else "00:30:00"  # as dask-jobqueue has it
    if not isinstance(given, str):
        problems.add(
            line,
            f"walltime is left to Dask's configuration, and that has the number {given} for it: "
            f"it must be quoted there",
        )
        return None
    try:
        return walltime_seconds(kind, given)
    except ValueError as exc:
        problems.add(line, f"walltime: {exc}")
        return None


def _leave_in_time(kwargs: dict[str, Any], theirs: Any, walltime: float) -> None:
    """Have workers leave, and hand over what they hold, before the queue kills their job."""
    if (kwargs.get("worker_command") or theirs("worker-command") or _DASK_WORKER) != _DASK_WORKER:
        return  # who knows what it takes
    arguments = _list(kwargs, "worker_extra_args", theirs, "extra")
    if _has(arguments, "--lifetime"):
        return
    lifetime, stagger = leaving(walltime)
    arguments += ["--lifetime", f"{lifetime}s"]
    if not _has(arguments, "--lifetime-stagger"):
        arguments += ["--lifetime-stagger", f"{stagger}s"]
    kwargs["worker_extra_args"] = arguments


def leaving(walltime: float) -> tuple[int, int]:
    """Return after how many seconds a worker is to leave its job, give or take how many.

    A twelfth of the walltime is kept for it, at most ten minutes, and at least 20 s, as a worker
    takes some to start and to leave; of a very short walltime the half.
    """
    kept = min(max(walltime / 12, 20), 600, walltime / 2)
    return max(1, int(walltime - kept)), int(kept / 4)


def _has(arguments: list[str], option: str) -> bool:
    return any(re.match(rf"{option}(?![\w-])", word) for one in arguments for word in one.split())


def _list(kwargs: dict[str, Any], key: str, theirs: Any, old: str) -> list[str]:
    """Return a list that is to be added to: ours, or the one of the user's Dask configuration."""
    if kwargs.get(key):
        return list(kwargs[key])
    found = theirs(key.replace("_", "-")) or theirs(old) or []
    return [found] if isinstance(found, str) else [str(one) for one in found]


def _theirs(section: str, key: str) -> Any:
    """Return what the user, or the site, says in Dask's configuration; not a package's default."""
    import dask

    name = f"jobqueue.{section}.{key}"
    value = dask.config.get(name, None)
    default = dask.config.get(name, None, config=dask.config.merge(*dask.config.defaults))
    return None if value == default else value


# -- settings of Dask -----------------------------------------------------------------------------


def unknown_setting(name: str) -> str | None:
    """Return None for a setting that Dask may have; else the closest name, to be told.

    Only names of distributed are known for sure: others are of other packages.
    """
    parts = name.replace("_", "-").split(".")
    if parts[0] != "distributed":
        return None
    known: Any = _settings()
    for depth, part in enumerate(parts):
        before = ".".join(parts[:depth])
        if not known or part in _OPEN:
            return None
        if not isinstance(known, dict):
            return f": {before} is a single value"
        if part not in known:
            close = difflib.get_close_matches(part, list(known), n=1, cutoff=0.5)
            if close:
                return f"; did you mean {before}.{close[0]}?"
            return f"; below {before} there are {', '.join(sorted(known))}"
        known = known[part]
    return None


@functools.cache
def _settings() -> dict[str, Any]:
    """Return the settings that distributed comes with; without its import, which takes long."""
    from importlib.util import find_spec

    import yaml

    spec = find_spec("distributed")
    assert spec is not None  # we depend on it
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "distributed.yaml").read_text(encoding="utf-8")
    settings: dict[str, Any] = yaml.safe_load(text)
    return settings
