"""This process's end of the line to the keeper of a cluster. Floor 5.

::

    the user's process                     the keeper, a process of its own
    ------------------                     --------------------------------
    DaskExecutor                           RunningCluster (`daskexec.kinds`): its scheduler,
      Client ------ Dask, TCP or TLS --->    its workers or its jobs
      KeptCluster - a socket, JSON lines --> Keeper (`daskexec.keeper`)

A keeper ends its cluster when its client's process ends, however that ends: the kernel closes the
socket. Certificates made for a cluster come through the socket, and are on no command line and in
no file. What the keeper and Dask in it print goes to a log in its folder (`daskexec._state`), of
which errors quote the end.

The keeper starts at once, and nothing of Dask is imported here: the two processes import
``distributed`` at the same time.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from daskexec import _state
from daskexec._failures import Failure
from daskexec._state import Entry
from daskexec.config import ClusterConfig
from daskexec.errors import ClusterStartFailed, ClusterUnreachable, ExecutorWarning

__all__ = ["KeptCluster", "Wire", "attach", "packed", "start", "tell", "unpacked"]


def packed(value: Any) -> str:
    """Return a value as text, for a line of JSON."""
    return base64.b64encode(pickle.dumps(value, 5)).decode()


def unpacked(text: str) -> Any:
    """Return the value that `packed` was given: by another process of this user's."""
    return pickle.loads(base64.b64decode(text))


class Wire:
    """Messages, one JSON object a line, over a connected socket. Any thread may send."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lines = sock.makefile("rb")
        self._lock = threading.Lock()  # guards the sending

    def send(self, **message: Any) -> None:
        """Send a message; the other end being gone is no error."""
        with self._lock, contextlib.suppress(OSError):
            self._sock.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None when the other end has gone. For one thread."""
        try:
            line = self._lines.readline()
        except (OSError, ValueError):
            return None
        message: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return message

    def hang_up(self) -> None:
        """Have both ends receive None from now on."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the socket; the other end hears of it when nobody else has it."""
        with contextlib.suppress(OSError, ValueError):
            self._lines.close()
        self._sock.close()


class KeptCluster:
    """A running cluster in a keeper's hands: see `daskexec.kinds.RunningCluster`.

    Every method may be called from any thread.

    Attributes
    ----------
    name : str
        Of its folder.
    config : ClusterConfig
        What it was started from.
    address : str
        Of its scheduler, once it is open.
    security : distributed.Security or None
        With which clients connect to it.
    boards : str
        Folder in which executors have their boards, where its workers are processes of this
        machine; else "". Only then `death_of` and what follows it can be asked for.
    left : bool
        It goes on without this process: closing it is to let go of it.
    names : list of (name, index, function)
        The calls that were left with it.
    """

    #: Seconds in which the keeper answers small questions.
    ANSWER = 5.0
    #: Seconds in which it says why a worker has gone: the queue may have to be asked.
    FATE = 30.0
    #: Seconds in which it ends its cluster, jobs of a slow queue included.
    CLOSING = 300.0

    def __init__(
        self, name: str, sock: socket.socket, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.name = name
        self.config: ClusterConfig
        self.address, self.security = "", None
        self.left = False
        self.boards = ""
        self.names: list[tuple[Any, int, str]] = []
        self.pid = process.pid if process is not None else 0
        self.on_news: Callable[[dict[str, Any]], None] = lambda _: None  # on the reading thread
        self.on_close: Callable[[], None] = lambda: None
        self._process = process
        self._sock = sock
        self._wire = Wire(sock)
        self._lock = threading.Lock()  # guards what is asked for, and `_over`
        self._closing = threading.Lock()  # held while it is closed
        self._closed = False
        self._over = False  # the keeper has hung up
        self._asked: dict[int, Future[Any]] = {}
        self._number = 0
        self._trouble = (False, "")
        self._reader = threading.Thread(target=self._read, name="daskexec kept", daemon=True)
        self._reader.start()
        _open.add(self)

    # -- questions and answers ---------------------------------------------------------------

    def ask(self, what: str, **fields: Any) -> Future[Any]:
        """Ask the keeper something; the future fails when the keeper ends."""
        answer: Future[Any] = Future()
        with self._lock:
            over = self._over
            if not over:
                self._number += 1
                self._asked[self._number] = answer
                number = self._number
        if over:
            answer.set_exception(ClusterUnreachable(self.dead()))
        else:
            self._wire.send(op=what, id=number, **fields)
        return answer

    def _read(self) -> None:
        while True:
            message = self._wire.receive()
            if message is None:
                break
            if message["op"] == "answer":
                self._answered(message)
            elif message["op"] == "trouble":
                self._trouble = (message["final"], message["known"])
            elif message["op"] == "warning":
                # Not warnings.warn: no line of this file explains anything to its reader.
                with contextlib.suppress(ExecutorWarning):  # it is an error, but whose?
                    warnings.warn_explicit(message["message"], ExecutorWarning, "daskexec", 0)
            else:
                self.on_news(message)
        with self._lock:
            self._over = True
            asked, self._asked = list(self._asked.values()), {}
        for answer in asked:
            answer.set_exception(ClusterUnreachable(self.dead()))
        self.on_news({"op": "over"})

    def _answered(self, message: dict[str, Any]) -> None:
        with self._lock:
            answer = self._asked.pop(message["id"], None)
        if answer is None:
            return
        if "error" not in message:
            answer.set_result(message["value"])
            return
        failure: Failure = unpacked(message["error"])
        error = failure.load()
        if type(error).__module__.startswith("daskexec"):
            error.__cause__ = None  # its message says all; the keeper's frames say no more
        answer.set_exception(error)

    def dead(self) -> str:
        """Say that the keeper has ended, and what is known of why."""
        return (
            f"the process {self.pid} that keeps the cluster {self.name!r} has ended" + self._log()
        )

    def _log(self) -> str:
        tail = _state.log_tail(_state.clusters() / self.name)
        return f". The end of its log:\n{tail}" if tail else ""

    # -- a running cluster -------------------------------------------------------------------

    def wait_until_open(self) -> None:
        """Wait until the scheduler listens and workers were asked for.

        Raises
        ------
        ClusterStartFailed, ClusterUnreachable, ConfigError, ...
            What `daskexec.kinds.open_cluster` raised in the keeper.
        """
        try:
            answer = self._opening.result()
        except ClusterUnreachable:
            if not self._over:
                raise
            assert self._process is not None
            status = self._process.wait(10)
            raise ClusterStartFailed(
                f"the process that was to start the cluster {self.config.name!r} ended with "
                f"status {status}{self._log()}"
            ) from None
        self._is_at(answer)

    def _is_at(self, answer: dict[str, Any]) -> None:
        """Note what the keeper says of the open cluster."""
        self.address, self.security = answer["address"], unpacked(answer["security"])
        self.boards = answer["boards"]

    def open(self, config: ClusterConfig, workers: int | None) -> None:
        """Ask for the cluster to be started; returns at once."""
        self.config = config
        self._opening = self.ask("open", config=packed(config), workers=workers)

    def trouble(self) -> tuple[bool, str]:
        """Say what keeps workers from joining; as the keeper last said."""
        if self._over and not self._closed:
            return True, self.dead()
        return self._trouble

    def fate(self, worker: str) -> str:
        """Return what is known of why a worker has gone."""
        try:
            known: str = self.ask("fate", worker=worker).result(self.FATE)
        except Exception:
            return ""
        return known

    def answer_at_once(self, client: str) -> None:
        """Have the scheduler send each message to a client at once; does not wait."""
        self.ask("answer_at_once", client=client)

    def death_of(self, pid: int) -> tuple[str, str]:
        """Return name of the worker that had this process id, and what ended it."""
        try:
            name, reason = self.ask("death_of", pid=pid).result(self.ANSWER)
        except Exception:
            return "", ""
        return name, reason

    def recycle(self, pid: int) -> None:
        """End one worker process; a fresh one takes its place. Does not wait."""
        self.ask("recycle", pid=pid)

    def kill(self, pid: int) -> None:
        """Have a worker process killed and replaced."""
        self.ask("kill", pid=pid)

    def signal_workers(self, number: int) -> None:
        """Send a signal to every worker process, and replace none of them. Does not wait."""
        self.ask("signal_workers", number=number)

    def last_words(self) -> str:
        """Return what is known of why the scheduler has gone."""
        try:
            known: str = self.ask("last_words").result(self.FATE)
        except Exception:
            return self.dead() if self._over else ""
        return known

    def scale(self, workers: int) -> None:
        """Ask for so many workers altogether."""
        self.ask("scale", workers=workers).result()

    def reserve(self, name: str) -> int:
        """Have the cluster called by a name; return how many calls were left with it before.

        Raises ValueError when there is one of that name.
        """
        calls: int = self.ask("reserve", name=name).result()
        self.name = name
        return calls

    def keep(self, *, idle_timeout: float, keep: float) -> None:
        """Have the keeper take over what is in the file ``parcel``, and then go on alone."""
        self.ask("keep", idle_timeout=idle_timeout, keep=keep).result(self.CLOSING)
        self.left = True

    def close(self) -> None:
        """End the cluster and its keeper, or let go of it where it was `left`; blocks."""
        with self._closing:
            if self._closed:
                return
            try:
                if not self.left and not self._over:
                    self.ask("close").result(self.CLOSING)
                    self._reader.join(self.CLOSING)
            except ClusterUnreachable:
                pass  # it has just ended
            finally:
                self._closed = True
                self._let_go()
                self.on_close()

    def _let_go(self) -> None:
        self._wire.hang_up()
        if self._reader is not threading.current_thread():
            self._reader.join(self.ANSWER)
        self._wire.close()
        _open.discard(self)
        if self._process is None:
            return
        if self.left:
            self._process.returncode = 0  # nobody's child any more: no warning that it runs on
            return
        try:
            self._process.wait(self.ANSWER)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _state.remove(self.name)  # it has done so itself, unless it was killed


def start(config: ClusterConfig, workers: int | None) -> KeptCluster:
    """Start a keeper and have it start a cluster; returns at once.

    Raises
    ------
    ClusterStartFailed
        There is no place for what a keeper writes down.
    """
    try:
        _state.entries()  # removes what is stale
        folder, lock = _state.new_folder(config.name)
    except OSError as exc:
        raise ClusterStartFailed(
            f"the folder for running clusters, {_state.clusters()}, cannot be used "
            f"({type(exc).__name__}: {exc}): set XDG_STATE_HOME to a folder of yours"
        ) from None
    ours, theirs = socket.socketpair()
    # The path first: whatever lies in the current folder must not be imported as one of the
    # stdlib's modules.
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        f"from daskexec.keeper import main\n"
        f"main({theirs.fileno()}, {lock}, {folder.name!r}, {config.name!r}, {config.kind!r}, "
        f"{os.getpid()})"
    )
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    with theirs, open(folder / "log.txt", "ab", opener=_private) as log:
        try:
            process = subprocess.Popen(
                [sys.executable, *flags, "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno(), lock],
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            os.close(lock)  # the keeper's now
    kept = KeptCluster(folder.name, ours, process)
    kept.open(config, workers)
    return kept


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


# --- clusters that were left --------------------------------------------------------------------


def _connect(entry: Entry) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(KeptCluster.ANSWER)
        sock.connect(entry.socket)
        sock.settimeout(None)
    except OSError as exc:
        sock.close()
        raise ClusterUnreachable(
            f"the keeper of {entry.name!r}, process {entry.pid} on {entry.host}, does not "
            f"answer at {entry.socket} ({type(exc).__name__}: {exc})"
        ) from None
    return sock


def tell(entry: Entry, what: str) -> Any:
    """Ask the keeper of a cluster of this host one thing: its ``status``, or to ``stop``.

    Raises
    ------
    ClusterUnreachable
        It does not answer.
    """
    wire = Wire(_connect(entry))
    try:
        wire.send(op=what, id=1)
        while True:
            message = wire.receive()
            if message is None:
                raise ClusterUnreachable(f"the keeper of {entry.name!r} has just ended")
            if message["op"] == "answer":
                if "error" in message:
                    raise unpacked(message["error"]).load()
                return message["value"]
    finally:
        wire.close()


def look_up(name: str) -> Entry:
    """Return the entry of a cluster that was left; it may have ended.

    Raises
    ------
    ValueError
        None was left by that name.
    """
    known = [entry for entry in _state.entries() if entry.left]
    for entry in known:
        if entry.name == name:
            return entry
    names = [entry.name for entry in known]
    close = difflib.get_close_matches(str(name), names, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    there = f"There are: {', '.join(names)}." if names else "None is there."
    raise ValueError(
        f"no cluster was left as {name!r}, or its results were not kept any longer "
        f"(looked for in {_state.clusters()}).{hint} {there}"
    )


def attach(entry: Entry) -> KeptCluster:
    """Take over a cluster that was left and still runs.

    Raises
    ------
    ClusterUnreachable
        Its keeper is on another host, or does not answer.
    RuntimeError
        Another process has attached it.
    """
    if not entry.here:
        raise ClusterUnreachable(
            f"the cluster {entry.name!r} was left on the host {entry.host}: attach it there "
            f"(this is {os.uname().nodename})"
        )
    kept = KeptCluster(entry.name, _connect(entry))
    kept.pid = entry.pid
    kept.left = True  # until it is ours
    try:
        answer = kept.ask("attach", pid=os.getpid()).result()
    except BaseException:
        kept.close()
        raise
    kept.left = False
    kept.config = unpacked(answer["config"])
    kept._is_at(answer)
    kept.names = [tuple(one) for one in answer["names"]]
    return kept


# --- this process's fork -------------------------------------------------------------------------

_open: weakref.WeakSet[KeptCluster] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for kept in _open:  # or the keeper would not see our end
        with contextlib.suppress(OSError):
            os.close(kept._sock.detach())
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
