"""The hosts of an SSH cluster: what a config says of them, and a process on one. Floor 6.

A part of `daskexec.kinds.ssh`, whose docstring lists the keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import shlex
import sys
from collections import deque
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from daskexec.config import ClusterConfig
from daskexec.errors import ClusterStartFailed, ConfigError

__all__ = [
    "FIXED",
    "SHELL",
    "Host",
    "Process",
    "Told",
    "checked",
    "explained",
    "hosts_of",
    "script",
]

#: Takes one line of shell from stdin, so that the command line on the host tells nothing.
SHELL = "exec sh -c 'IFS= read -r line && eval \"$line\"'"

#: Seconds that a host has to end all of its own accord.
FAREWELL = 10.0

FIXED = (
    "an SSH cluster is as large as its hosts ({hosts} of them here) and is not scaled: add hosts, "
    "or set worker_options: n_workers; max_workers of the executor limits how much of it is used"
)

_KEYS = frozenset(
    {
        "hosts", "connect_options", "connect_timeout", "worker_options", "scheduler",
        "scheduler_options", "remote_python", "prologue", "environment",
    }
)  # fmt: skip
_CONNECT_KEYS = frozenset(
    {
        "port", "username", "password", "client_keys", "passphrase", "known_hosts", "config",
        "tunnel", "agent_path", "host_key_alias", "preferred_auth", "gss_host",
    }
)  # fmt: skip
_WORKER_KEYS = frozenset(
    {
        "n_workers", "nthreads", "memory_limit", "local_directory", "resources", "interface",
        "host", "worker_port", "death_timeout", "lifetime", "lifetime_stagger",
    }
)  # fmt: skip
_SCHEDULER_KEYS = frozenset({"host", "interface", "port"})


class Told(Exception):
    """What a host says of why it could not start."""


class Process:
    """A running `daskexec.kinds.ssh_host` and the connection to it; on the loop only.

    Attributes
    ----------
    up : asyncio.Future
        The first that it says, which is that it is ready; or `Told`, why it is not.
    ended : asyncio.Task
        Done when the process has ended or the connection is lost.

    Its later messages go to `told`.
    """

    def __init__(
        self, connection: Any, process: Any, told: Callable[[dict[str, Any]], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.connection, self._process = connection, process
        self.up: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.up.add_done_callback(lambda up: up.cancelled() or up.exception())
        self._said: deque[str] = deque(maxlen=30)
        self._why = ""
        self.ended = loop.create_task(self._listen(told))

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # it has ended, which is seen elsewhere
            self._process.stdin.write(text.encode())

    async def _listen(self, told: Callable[[dict[str, Any]], None]) -> None:
        errors = asyncio.ensure_future(self._keep_errors())
        try:
            while line := await self._process.stdout.readline():
                self._take(line, told)
        except Exception as exc:  # asyncssh's, when the network is cut
            self._why = self._why or f"the SSH connection was lost: {exc}"
        closed = asyncio.ensure_future(self._process.wait_closed())
        await asyncio.wait([errors, closed], timeout=2)  # its exit status comes last
        errors.cancel()
        closed.cancel()
        if not self.up.done():
            self.up.set_exception(Told(self.end_of_it()))

    def _take(self, line: bytes, told: Callable[[dict[str, Any]], None]) -> None:
        event = None
        with contextlib.suppress(ValueError):  # a greeting of the login shell
            event = json.loads(line)
        if not isinstance(event, dict) or "event" not in event:
            return
        if event["event"] == "failed":
            self._why = event["what"]
        elif not self.up.done():
            self.up.set_result(event)
        else:
            told(event)

    async def _keep_errors(self) -> None:
        rest = b""
        with contextlib.suppress(Exception):  # asyncssh's, when the network is cut
            while part := await self._process.stderr.read(65536):
                *lines, rest = (rest + part)[-65536:].split(b"\n")
                self._said.extend(line.decode(errors="replace") for line in lines if line.strip())
        if rest.strip():
            self._said.append(rest.decode(errors="replace"))

    def end_of_it(self) -> str:
        """Say how it ended, in its own words where there are any."""
        if self._why:
            return self._why
        status = self._process.returncode
        if status is None:
            return "the SSH connection was lost"
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        return f"{how}: {self._said[-1].strip()}" if self._said else how

    async def end(self) -> None:
        """Have all on the host end; wait for that within limits."""
        self.write("end\n")
        with contextlib.suppress(OSError, TypeError):
            self._process.stdin.write_eof()
        with contextlib.suppress(asyncio.TimeoutError, OSError):
            await asyncio.wait_for(self._process.wait_closed(), FAREWELL)
        self.connection.close()
        with contextlib.suppress(asyncio.TimeoutError, OSError):
            await asyncio.wait_for(self.connection.wait_closed(), 2)


class Host:
    """One of the hosts, and what runs there now."""

    def __init__(self, name: str, label: str, connect: Mapping[str, Any], python: str) -> None:
        self.name, self.label, self.connect, self.python = name, label, dict(connect), python
        self.process: Process | None = None
        self.connection: Any = None
        self.trouble = ""
        self.addresses: dict[str, str] = {}  # of its workers, by name
        self.scratch = ""  # its folder there


# --- what the config says -----------------------------------------------------------------------


def checked(config: ClusterConfig) -> dict[str, Any]:
    """Return the config's ``cluster_kwargs``; raise ConfigError for what cannot be right."""
    kwargs = dict(config.cluster_kwargs)
    source = config.source or config.name

    def wrong(what: str) -> ConfigError:
        return ConfigError(f"{source}: {what}", config.source)

    def known(where: str, keys: Mapping[str, Any], all_: Set[str]) -> None:
        for key in keys:
            if key not in all_:
                close = difflib.get_close_matches(str(key), sorted(all_), n=1)
                hint = f"; did you mean {close[0]}?" if close else f"; there are {sorted(all_)}"
                raise wrong(f"{where} has no key {key!r}{hint}")

    known("cluster_kwargs of kind ssh", kwargs, _KEYS)
    hosts = kwargs.get("hosts")
    if not isinstance(hosts, list) or not hosts or not all(isinstance(h, str) for h in hosts):
        raise wrong("hosts must be a list of host names or addresses, with at least one")
    for name in ("connect_options", "remote_python"):
        value = kwargs.get(name)
        if isinstance(value, list) and len(value) != len(hosts):
            raise wrong(f"{name} is a list of {len(value)} for {len(hosts)} hosts: one for each")
    for options in _each(kwargs.get("connect_options") or {}, 1):
        known("connect_options", options, _CONNECT_KEYS)
        if "known_hosts" in options and options["known_hosts"] is None and not config.insecure:
            raise wrong(
                "known_hosts: null takes anybody's word for being the host: name a file of host "
                "keys (ssh-keyscan writes one), or say insecure: true as well"
            )
    known("worker_options", kwargs.get("worker_options") or {}, _WORKER_KEYS)
    known("scheduler_options", kwargs.get("scheduler_options") or {}, _SCHEDULER_KEYS)
    if kwargs.get("scheduler", "local") not in ("local", "first"):
        raise wrong(f"scheduler must be local or first, not {kwargs['scheduler']!r}")
    for name, text in (kwargs.get("environment") or {}).items():
        if not str(name).isidentifier() or "\n" in str(text):
            raise wrong(f"environment: {name} must be a variable's name, its value one line")
    if any("\n" in str(line).strip() for line in kwargs.get("prologue") or []):
        raise wrong("prologue must be a list of lines of shell, each a string of one line")
    if config.adapt or config.scale:
        raise wrong(FIXED.format(hosts=len(hosts)))
    return kwargs


def _each(value: Any, number: int) -> list[Any]:
    return value if isinstance(value, list) else [value] * number


def hosts_of(kwargs: Mapping[str, Any]) -> list[Host]:
    """Return the hosts that the keys name."""
    names: list[str] = kwargs["hosts"]
    options = _each(kwargs.get("connect_options") or {}, len(names))
    pythons = _each(kwargs.get("remote_python") or sys.executable, len(names))
    hosts: list[Host] = []
    for name, connect, python in zip(names, options, pythons, strict=True):
        before = sum(host.name == name for host in hosts)
        label = f"{name}.{before + 1}" if before else name
        hosts.append(Host(name, label, _expanded(connect), python))
    return hosts


def _expanded(connect: Mapping[str, Any]) -> dict[str, Any]:
    """Have ``~`` in the names of files stand for the home folder."""
    expanded = dict(connect)
    for key in ("client_keys", "known_hosts", "config", "agent_path"):
        value = expanded.get(key)
        if isinstance(value, list):
            expanded[key] = [str(Path(each).expanduser()) for each in value]
        elif isinstance(value, str):
            expanded[key] = str(Path(value).expanduser())
    return expanded


def script(kwargs: Mapping[str, Any], python: str) -> str:
    """Return the line of shell that a host is to run."""
    environment = kwargs.get("environment") or {}
    lines = [f"export {name}={shlex.quote(str(value))}" for name, value in environment.items()]
    lines += [str(line).strip().rstrip(";") for line in kwargs.get("prologue") or []]
    home = "~/" if python.startswith("~/") else ""  # for the host's shell to expand
    start = home + shlex.quote(python.removeprefix(home))
    return "; ".join([*filter(None, lines), f"exec {start} -u -m daskexec.kinds.ssh_host"])


# --- what went wrong ----------------------------------------------------------------------------


def explained(host: Host, error: BaseException) -> str:
    """Say in a line why a host cannot be used, and what to do."""
    import asyncssh

    port = host.connect.get("port", 22)
    user = f"{host.connect['username']}@" if "username" in host.connect else ""
    said = " ".join(str(error).split()) or type(error).__name__
    command = f"ssh -p {port} {user}{host.name}"
    if isinstance(error, asyncssh.PermissionDenied):
        return (
            f"it refused the login ({said}). Check username and client_keys in connect_options; "
            f"try: {command}"
        )
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return (
            f"its host key is not known ({said}). Compare and accept it once by: {command}; "
            f"or name a file of host keys as known_hosts in connect_options"
        )
    if isinstance(error, asyncssh.KeyImportError):
        return f"the key cannot be used ({said}). Check client_keys in connect_options"
    if isinstance(error, Told):
        return _explained_end(host, said)
    if isinstance(error, FileNotFoundError | PermissionError):
        return f"a file named in connect_options cannot be read ({said})"
    if isinstance(error, asyncio.TimeoutError):
        return f"no answer at port {port} within connect_timeout. Is it up? Try: {command}"
    if isinstance(error, OSError | asyncssh.Error):
        return f"no SSH connection to port {port} ({said}). Is it up? Try: {command}"
    if isinstance(error, ClusterStartFailed):
        return said
    return f"{type(error).__name__}: {said}"


def _explained_end(host: Host, said: str) -> str:
    """Say what to do about a process that ended before it was ready."""
    if "exit status 127" in said or "exit status 126" in said:
        return f"there is no Python at {host.python} ({said}). Set remote_python"
    if "No module named" in said:
        missing = said.rpartition("No module named")[2].strip(" '\"").partition(".")[0]
        return (
            f"{host.python} there has no {missing} ({said}). Install daskexec there, as here, or "
            f"set remote_python to a Python that has it"
        )
    return said
