"""What is submitted to a queue: from a config to dask-jobqueue's options and the job script.

dask-jobqueue has had no release since 2024; what does not suit is set right here rather than
left to it: logs at a place that is known, HTTP on loopback only, certificates in files of ours,
and Ctrl-C left alone. What a config is completed with when it is loaded (one process a job, no
requeueing, workers that leave before the walltime) is in `daskexec.config`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from daskexec.config import ClusterConfig
from daskexec.errors import ClusterStartFailed, ConfigError
from daskexec.kinds import needs

__all__ = ["cluster_class", "cluster_options", "job_script", "processes_of", "told"]

_CLASSES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
    "moab": "MoabCluster",
}

_LOOPBACK = "127.0.0.1:0"

#: Options of the cluster, not of each job.
_CLUSTERS_OWN = {"scheduler_options", "name", "silence_logs", "n_workers", "shared_temp_directory"}


def cluster_class(kind: str) -> Any:
    """Return dask-jobqueue's class for a kind of queue.

    Raises
    ------
    PackageMissing
        dask-jobqueue is not installed.
    """
    with _ctrl_c_left_alone():
        return getattr(needs("dask_jobqueue", extra="hpc", kind=kind), _CLASSES[kind])


@contextlib.contextmanager
def _ctrl_c_left_alone() -> Iterator[None]:
    """Keep the import of dask-jobqueue from setting a handler for SIGINT.

    Its module ``runner`` does that: Ctrl-C would end the user's program without a word and with
    exit code 0, and outside the main thread the import fails.
    """
    real = signal.signal

    def guarded(number: Any, handler: Any) -> Any:
        if sys._getframe(1).f_globals.get("__name__") == "dask_jobqueue.runner":
            return signal.getsignal(number)
        return real(number, handler)

    signal.signal = guarded  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = real


def told(config: ClusterConfig, option: str) -> Any:
    """Return what the config says of an option, or else Dask's own files (jobqueue.yaml)."""
    import dask

    value = config.cluster_kwargs.get(option)
    if value is None:
        section = config.cluster_kwargs.get("config_name") or config.kind
        value = dask.config.get(f"jobqueue.{section}.{option}", None)
    return value


def processes_of(config: ClusterConfig) -> int:
    """Return how many worker processes a job has: one, unless it is said.

    Dask's default would be several, which its adaptive scaling cannot tell from jobs.
    """
    return int(told(config, "processes") or 1)


def cluster_options(config: ClusterConfig, folder: Path) -> dict[str, Any]:
    """Return the keywords for dask-jobqueue's cluster class, all but ``security``.

    Parameters
    ----------
    config : ClusterConfig
    folder : Path
        The run's own, on a file system that the hosts share: for logs when nothing is said.
    """
    options = dict(config.cluster_kwargs)
    options.pop("shared_temp_directory", None)  # keys are written by us
    options["name"] = config.name
    options["silence_logs"] = False  # it would change the levels of the user's loggers
    options["protocol"] = "tcp://" if config.insecure else "tls://"
    options["processes"] = processes_of(config)
    options["log_directory"] = str(_path(told(config, "log_directory")) or folder / "logs")
    options["scheduler_options"] = {
        "dashboard_address": _LOOPBACK,
        "needs_workdir": False,  # which it would leave behind
        "local_directory": str(folder),
        **(told(config, "scheduler_options") or {}),
    }
    options["worker_extra_args"] = _worker_arguments(config)
    options["job_script_prologue"] = [
        *_exports(config),
        *(told(config, "job_script_prologue") or []),
    ]
    if config.kind == "oar":
        _complete_oar(config, options)
    return options


def _complete_oar(config: ClusterConfig, options: dict[str, Any]) -> None:
    if told(config, "memory_per_core_property_name") is None:
        options["memory_per_core_property_name"] = "not_applicable"  # else it warns for each job
    extra = list(told(config, "job_extra_directives") or [])
    if not any(re.match(r"(-O|-E|--std)", str(directive)) for directive in extra):
        logs = options["log_directory"]  # which dask-jobqueue does not tell OAR of
        extra += [f"-O {logs}/dask-worker.%jobid%.out", f"-E {logs}/dask-worker.%jobid%.err"]
    options["job_extra_directives"] = extra


def job_script(config: ClusterConfig) -> str:
    """Return the script that would be submitted for one job; nothing is started or left.

    The address of the scheduler, the worker's name and the folder of the run, which are known
    only once a cluster is started, have stand-ins in angle brackets or with X's.

    Raises
    ------
    ConfigError
        dask-jobqueue does not take what the config says.
    PackageMissing
        dask-jobqueue is not installed.
    """
    made = cluster_class(config.kind)
    with config.in_force():
        folder = run_root(config) / "run-XXXXXXXX"
        options = cluster_options(config, folder)
        for name in _CLUSTERS_OWN:
            options.pop(name, None)
        options["interface"] = told(config, "interface")
        if not config.insecure:
            options["security"] = worker_security(config, folder)
        scheduler = f"{options['protocol']}<scheduler>:<port>"
        with _no_new_folder(Path(options["log_directory"])), as_config_error(config):
            job = made.job_cls(scheduler, name=f"{config.name}-<number>", **options)
            return str(job.job_script())


@contextlib.contextmanager
def as_config_error(config: ClusterConfig) -> Iterator[None]:
    """Turn what dask-jobqueue says of wrong options into a ConfigError."""
    try:
        yield
    except (TypeError, ValueError, KeyError) as exc:
        said = str(exc).partition("\njob_kwargs=")[0].strip()
        where = config.source or f"cluster config {config.name!r}"
        raise ConfigError(f"{where}: cluster_kwargs: {said}", config.source) from exc


def run_root(config: ClusterConfig) -> Path:
    """Return the folder, on a file system that the hosts share, for the folders of runs."""
    return (
        _path(told(config, "shared_temp_directory"))
        or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "daskexec").expanduser()
    )


def worker_security(config: ClusterConfig, folder: Path) -> Any:
    """Return the security of the workers: where their certificates are, not what is in them."""
    from distributed import Security

    own = own_certificates()
    if own is not None:
        return own
    return Security(
        require_encryption=True,
        tls_ca_file=str(folder / "ca.pem"),
        tls_worker_cert=str(folder / "worker.pem"),
        tls_worker_key=str(folder / "worker-key.pem"),
    )


def own_certificates() -> Any:
    """Return the security that Dask's configuration names certificates for, if it does."""
    import dask
    from distributed import Security

    if not dask.config.get("distributed.comm.tls.ca-file", None):
        return None
    return Security(require_encryption=True)


def _path(text: Any) -> Path | None:
    return Path(os.path.expandvars(str(text))).expanduser() if text else None


def _worker_arguments(config: ClusterConfig) -> list[str]:
    arguments = [str(a) for a in told(config, "worker_extra_args") or []]
    if not any("dashboard" in a for a in arguments):
        arguments += ["--dashboard-address", _LOOPBACK]
    return arguments


def _exports(config: ClusterConfig) -> list[str]:
    """Lines that put the config's settings for Dask in force on the workers."""
    lines = []
    for name, value in config.dask_config.items():
        if name.startswith("distributed."):
            variable = "DASK_" + name.upper().replace(".", "__").replace("-", "_")
            lines.append(f"export {variable}={shlex.quote(str(value))}")
    return lines


@contextlib.contextmanager
def _no_new_folder(path: Path) -> Iterator[None]:
    """Remove what dask-jobqueue makes of a path whenever a job object is made."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


def new_run_folder(config: ClusterConfig) -> Path:
    """Make the folder of a run, readable by this user only.

    Folders that killed processes of this host have left there, with their keys, are removed.

    Raises
    ------
    ClusterStartFailed
        It cannot be made there.
    """
    root = run_root(config)
    mine = f"run-{os.uname().nodename}-"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob(f"{mine}*"):
            pid = left.name.removeprefix(mine).partition("-")[0]
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                clear_run_folder(left, keep_logs=True)
        return Path(tempfile.mkdtemp(prefix=f"{mine}{os.getpid()}-", dir=root))
    except OSError as exc:
        raise ClusterStartFailed(
            f"cluster config {config.name!r} ({config.source}): no folder for keys and logs can "
            f"be made in {root}: {exc.strerror}. Set shared_temp_directory to one that you can "
            f"write to and that the compute nodes see too"
        ) from exc


def clear_run_folder(folder: Path, keep_logs: bool) -> None:
    """Remove the folder of a run; logs of jobs that failed are of use, and may stay."""
    if not keep_logs:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.name != "logs":
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    for path in (folder / "logs", folder):
        with contextlib.suppress(OSError):  # there is something in it
            path.rmdir()
