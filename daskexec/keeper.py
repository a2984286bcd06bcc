"""The keeper: a process of its own that holds a cluster, and calls that were left. Floor 8.

::

    client's process            keeper                              scheduler, workers
    ----------------            ------                              ------------------
    KeptCluster <-- socket ---> reading thread, one a connection
                                  a thread a question
                                main thread: ends what is over  --> RunningCluster
                                left calls: Dispatcher, opaque  --> Dask client
                                  results, as bytes -> a file

It runs in a session of its own, ignores Ctrl-C and the end of a terminal, and ends its cluster

- when its client's process ends, however it ends, unless the cluster was left (`detach`);
- when it was left: after `idle_timeout` without work and client; at the latest when `keep` is
  over, counted from when the last client left; or when it is told to stop, or gets SIGTERM.

User code never runs in it: the calls that were left are bytes, and so is what they come to.

When a client attaches, the keeper goes on with its calls, and says when there are more results
in the file; new calls are the client's own. So no call ever has two masters.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from daskexec import _state
from daskexec._failures import Failure, Unloaded
from daskexec._kept import Wire, packed, unpacked
from daskexec._parcel import Name, Parcel, ResultsWriter
from daskexec._state import Entry
from daskexec.config import ClusterConfig
from daskexec.errors import ExecutorWarning
from daskexec.futures import DaskFuture

__all__ = ["main"]

#: Seconds between two looks at what has changed.
_PULSE = 0.5
#: Seconds in which the scheduler must answer.
_CONNECT = 30.0


class Keeper:
    """One cluster, those who use it, and the calls that were left with it.

    Parameters
    ----------
    entry : Entry
    owner : Wire
        To the process that has started it.
    """

    def __init__(self, entry: Entry, owner: Wire) -> None:
        self._entry = entry
        self._config: ClusterConfig
        self._lock = threading.RLock()  # guards all below, but for `_cluster`
        self._owner: Wire | None = owner
        self._batches: list[_Batch] = []
        self._names: list[tuple[Name, int, str]] = []
        self._done = 0
        self._results: ResultsWriter | None = None
        self._idle_since = time.time()
        self._opening = threading.Lock()  # held while the cluster starts
        self._cluster: Any = None
        self._dask: Any = None  # our own client of the cluster
        self._trouble = (False, "")
        self._end = threading.Event()
        self._closed = threading.Event()
        self._problem: BaseException | None = None
        self._answering: set[threading.Thread] = set()
        self._place = tempfile.mkdtemp(prefix="daskexec-")  # short: a socket's path must be
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        entry.socket = os.path.join(self._place, "keeper")
        self._listener.bind(entry.socket)
        self._listener.listen()
        entry.save()
        self._serve(owner)
        threading.Thread(target=self._accept, name="daskexec accept", daemon=True).start()

    def warn(self, message: Any, category: Any, *where: Any, **more: Any) -> None:
        """Have the client say what is for its user; what is for nobody is for the log."""
        owner = self._owner
        if issubclass(category, ExecutorWarning) and owner is not None:
            owner.send(op="warning", message=str(message))
        print(f"{category.__name__}: {message}", file=sys.stderr)

    # -- the main thread ---------------------------------------------------------------------

    def run(self) -> None:
        """Look after the cluster until its end."""
        while not self._end.wait(_PULSE):
            self._look()
        try:
            self._close()
        except BaseException as exc:
            traceback.print_exc()
            self._problem = exc
        self._closed.set()
        for thread in list(self._answering):
            thread.join(5)

    def end(self, why: str) -> None:
        """Have the cluster ended. The first reason counts."""
        if not self._end.is_set():
            self._entry.why = why
            self._end.set()

    def _look(self) -> None:
        cluster, owner = self._cluster, self._owner
        if cluster is not None and owner is not None:
            trouble = cluster.trouble()
            if trouble != self._trouble:
                self._trouble = trouble
                owner.send(op="trouble", final=trouble[0], known=trouble[1])
        if owner is not None:
            with self._lock:
                begun = [index for batch in self._batches for index in batch.begun()]
            if begun:
                owner.send(op="running", indexes=begun)
        ends, why = self._ends()
        if ends is not None and time.time() >= ends:
            self.end(why)

    def _ends(self) -> tuple[float | None, str]:
        """When it ends if nothing happens until then, and why."""
        entry = self._entry
        with self._lock:
            if not entry.left or self._owner is not None:
                return None, "its client has ended"
            if not entry.folder.exists():
                return 0.0, "its folder was removed: nobody could come back to it"
            assert entry.until is not None
            if not self._pending():
                idle = self._idle_since + entry.idle_timeout
                if idle < entry.until:
                    return idle, f"it had no work and no client for {entry.idle_timeout:g} s"
            return entry.until, f"it was left {entry.keep:g} s before, and kept for no longer"

    def _pending(self) -> int:
        return sum(len(batch.futures) for batch in self._batches)

    def _close(self) -> None:
        self._listener.close()
        with self._lock:
            entry, results = self._entry, self._results
            keep = entry.left and bool(self._names) and self._owner is None
            if not keep:
                entry.left = False
            entry.ended = time.time()
            self._results = None  # what ends from now on was given up
            batches = list(self._batches)
        try:
            for batch in batches:
                batch.give_up()
            with self._opening:
                cluster, self._cluster = self._cluster, None
            with contextlib.suppress(Exception):
                if self._dask is not None:
                    self._dask.close()
            if cluster is not None:
                cluster.close()
        finally:
            if results is not None:
                results.close()
            if keep and entry.folder.exists():
                entry.save()
            else:
                shutil.rmtree(entry.folder, ignore_errors=True)
            shutil.rmtree(self._place, ignore_errors=True)

    # -- connections ---------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._serve(Wire(sock))

    def _serve(self, wire: Wire) -> None:
        threading.Thread(
            target=self._listen, args=[wire], name="daskexec listen", daemon=True
        ).start()

    def _listen(self, wire: Wire) -> None:
        while True:
            message = wire.receive()
            if message is None:
                break
            thread = threading.Thread(target=self._answer, args=[wire, message], daemon=True)
            self._answering.add(thread)
            thread.start()
        wire.close()
        with self._lock:
            if wire is self._owner:
                self._owner_left()
                if self._entry.left:
                    self._entry.save()
                else:
                    self.end("its client has ended")

    def _owner_left(self) -> None:
        entry = self._entry
        self._owner, entry.client = None, 0
        self._idle_since = time.time()
        entry.until = time.time() + entry.keep

    def _answer(self, wire: Wire, message: dict[str, Any]) -> None:
        number, what = message.pop("id"), message.pop("op")
        try:
            value = _QUESTIONS[what](self, wire, **message)
        except BaseException as exc:
            wire.send(op="answer", id=number, error=packed(Failure.of(exc)))
        else:
            wire.send(op="answer", id=number, value=value)
        self._answering.discard(threading.current_thread())

    # -- questions -----------------------------------------------------------------------------

    def open(self, wire: Wire, config: str, workers: int | None) -> dict[str, Any]:
        """Start the cluster."""
        with self._opening:
            if self._end.is_set():
                raise RuntimeError("the cluster was closed before it had started")
            self._config = unpacked(config)
            # Before a config's settings are in force for a while: its own defaults are to stay.
            import distributed  # noqa: F401

            from daskexec.kinds import open_cluster

            self._cluster = cluster = open_cluster(self._config, workers)
        self._entry.address = cluster.address
        with self._lock:
            if not self._end.is_set():
                self._entry.save()
        return self._where()

    def _where(self) -> dict[str, Any]:
        cluster = self._cluster
        return {
            "address": cluster.address,
            "security": packed(cluster.security),
            "boards": getattr(cluster, "boards", ""),
        }

    def answer_at_once(self, wire: Wire, client: str) -> None:
        """Have the scheduler send each message to a client at once."""
        self._cluster.answer_at_once(client)

    def death_of(self, wire: Wire, pid: int) -> tuple[str, str]:
        """Say which worker had that process id, and what ended it."""
        known: tuple[str, str] = self._cluster.death_of(pid)
        return known

    def recycle(self, wire: Wire, pid: int) -> None:
        """End one worker process; a fresh one takes its place."""
        self._cluster.recycle(pid)

    def kill(self, wire: Wire, pid: int) -> None:
        """Kill a worker process; a fresh one takes its place."""
        self._cluster.kill(pid)

    def signal_workers(self, wire: Wire, number: int) -> None:
        """Send a signal to every worker process, and replace none of them."""
        self._cluster.signal_workers(number)

    def fate(self, wire: Wire, worker: str) -> str:
        """Say why a worker has gone."""
        known: str = self._cluster.fate(worker)
        return known

    def last_words(self, wire: Wire) -> str:
        """Say why the scheduler has gone, where the cluster knows."""
        tell: Callable[[], str] = getattr(self._cluster, "last_words", str)
        return tell()

    def scale(self, wire: Wire, workers: int) -> None:
        """Ask for so many workers."""
        self._cluster.scale(workers)

    def close(self, wire: Wire) -> None:
        """End everything; answers when that is done."""
        self.end("its client has closed it")
        self._closed.wait()
        if self._problem is not None:
            raise self._problem

    def stop(self, wire: Wire) -> None:
        """End everything, on behalf of somebody else; what calls have come to is kept."""
        with self._lock:
            if self._owner is not None:
                self._owner.hang_up()
                self._owner = None
        self.end("it was told to, by `daskexec clusters --stop`")
        self.close(wire)

    def status(self, wire: Wire) -> dict[str, Any]:
        """Say how it stands."""
        with self._lock:
            ends, why = self._ends()
            pending = self._pending()
            return {"pending": pending, "done": self._done, "ends": ends, "why": why}

    # -- leaving and coming back -----------------------------------------------------------------

    def reserve(self, wire: Wire, name: str) -> int:
        """Take a name; say how many calls were left before."""
        entry = self._entry
        with self._lock:
            if name != entry.name:
                try:
                    os.rename(entry.folder, _state.clusters() / name)
                except OSError:
                    raise ValueError(
                        f"a cluster is called {name!r} already, or results of one are kept: "
                        f"choose another name, or see `daskexec clusters --running` and end "
                        f"that one by `daskexec clusters --stop {name}`"
                    ) from None
                entry.name = name
                entry.save()
            return len(self._names)

    def keep(self, wire: Wire, idle_timeout: float, keep: float) -> None:
        """Take over what the client leaves, in the file ``parcel``: from now on it is ours."""
        entry = self._entry
        path = entry.folder / "parcel"
        parcel = Parcel.load(path)
        path.unlink()
        batch = _Batch(self._client(), self._cluster, parcel, self._record)
        with self._lock:
            if self._results is None:
                self._results = ResultsWriter(entry.folder / "results")
            self._batches.append(batch)
            self._names += parcel.names
            for index, body in parcel.finished:
                self._results.add(index, body)
            self._done += len(parcel.finished)
            entry.left, entry.idle_timeout, entry.keep = True, idle_timeout, keep
            self._write_names()
            self._owner_left()
            entry.save()
        batch.start()

    def _client(self) -> Any:
        if self._dask is None:
            from daskexec._security import connected

            cluster = self._cluster
            options = {"timeout": _CONNECT, **self._config.client_kwargs}
            with self._config.in_force():
                self._dask = connected(cluster.address, security=cluster.security, **options)
        return self._dask

    def _write_names(self) -> None:
        import json

        _state.write(self._entry.folder / "futures.json", json.dumps(self._names).encode())

    def _record(self, batch: _Batch, index: int, future: DaskFuture[Any]) -> None:
        """Write down what a call came to; on the batch's callback thread."""
        body: Any
        if future.cancelled():
            body = None
        else:
            error = future.exception()
            if isinstance(error, Unloaded):
                body = error.failure
            else:
                body = future.result() if error is None else Failure.of(error)
        with self._lock:
            if self._results is None:
                return  # given up
            self._results.add(index, body)
            del batch.futures[index]
            self._done += 1
            if not self._pending():
                self._idle_since = time.time()
            owner = self._owner
        if owner is not None:
            owner.send(op="more")

    def attach(self, wire: Wire, pid: int) -> dict[str, Any]:
        """Have a new client."""
        entry = self._entry
        with self._lock:
            if self._end.is_set():
                raise RuntimeError(f"the cluster {entry.name!r} is ending: {entry.why}")
            if self._owner is not None or not entry.left:
                raise RuntimeError(
                    f"the cluster {entry.name!r} is in use by process {entry.client} on "
                    f"{entry.host}: only one process at a time can have it"
                )
            self._owner, entry.client = wire, pid
            entry.save()
            self._trouble = (False, "")
            return {**self._where(), "config": packed(self._config), "names": self._names}

    def follow(self, wire: Wire) -> None:
        """Tell the client, from now on, which calls have begun."""
        with self._lock:
            for batch in self._batches:
                batch.said.clear()

    def cancel(self, wire: Wire, indexes: list[int], kill: bool = False) -> list[int]:
        """Cancel calls that have not begun; say of a single one if it will never run.

        With `kill` a single one is cancelled also if it has. Of several the results will tell.
        """
        with self._lock:
            found = [
                (batch, [batch.futures[index] for index in indexes if index in batch.futures])
                for batch in self._batches
            ]
        stopped = False
        for batch, futures in found:
            if len(indexes) > 1:
                batch.cancel(futures)
            elif futures:
                stopped = futures[0].cancel(kill=kill)
        return indexes if stopped else []


_QUESTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(Keeper, name)
    for name in (
        "answer_at_once", "attach", "cancel", "close", "death_of", "fate", "follow", "keep",
        "kill", "last_words", "open", "recycle", "reserve", "scale", "signal_workers", "status",
        "stop",
    )
}  # fmt: skip


class _Batch:
    """The calls that one executor has left.

    Parameters
    ----------
    client : distributed.Client
    cluster : RunningCluster
    parcel : Parcel
    record : callable
        ``record(batch, index, future)`` when a call is over.

    Attributes
    ----------
    futures : dict of int to DaskFuture
        Of the calls that are not over, by index; guarded by the keeper's lock.
    """

    def __init__(
        self,
        client: Any,
        cluster: Any,
        parcel: Parcel,
        record: Callable[[_Batch, int, DaskFuture[Any]], None],
    ) -> None:
        from daskexec._batching import BatchPolicy
        from daskexec._dispatcher import Dispatcher
        from daskexec._parting import Unpacker
        from daskexec.clusters import inherited

        self.futures: dict[int, DaskFuture[Any]] = {}
        self.said: set[int] = set()  # of which the client knows that they run
        self._record = record
        policy = BatchPolicy(parcel.sharing, ahead=parcel.ahead, limit=parcel.limit)
        self._dispatcher = Dispatcher(
            inherited(parcel, client, cluster),
            parcel.executor,
            policy,
            initializer=parcel.initializer,
            opaque=True,
        )
        unpacker = Unpacker(parcel, self._dispatcher, policy)
        try:
            self._dispatcher.adopt(unpacker.tasks(), parcel.topic)
        except BaseException:
            self.give_up()
            raise
        self._calls = unpacker.calls()
        self.futures = unpacker.futures

    def start(self) -> None:
        """Begin with what was not begun."""
        for index, future in list(self.futures.items()):
            future.add_done_callback(
                lambda done, index=index: self._record(self, index, done)  # type: ignore[misc]
            )
        for call in self._calls:
            try:
                self._dispatcher.enter(call)
            except Exception as exc:  # the cluster is lost already
                call.future._finish(error=exc)
        self._calls = []
        self._dispatcher.shutdown(wait=False)

    def begun(self) -> list[int]:
        """Return which calls have begun since this was last asked."""
        news = [i for i, f in self.futures.items() if f.running() and i not in self.said]
        self.said.update(news)
        return news

    def cancel(self, futures: list[DaskFuture[Any]]) -> None:
        """Cancel what has not begun, without waiting."""
        self._dispatcher.cancel_all(futures)

    def give_up(self) -> None:
        """Let go of what is pending."""
        self._dispatcher.stop_workers(0, "stop")


def main(fd: int, lock: int, folder: str, config: str, kind: str, client: int) -> None:
    """Keep a cluster: the whole life of the process.

    Parameters
    ----------
    fd : int
        Socket to the process that has started this one.
    lock : int
        Descriptor of the lock of the folder; the lock is held as long as this process lives.
    folder, config, kind : str
        As of `Entry`.
    client : int
        Process that has started this one.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(fd, False)
    os.set_inheritable(lock, False)
    entry = Entry(
        folder, config, kind, os.uname().nodename, os.getpid(), client, since=time.time()
    )
    status = 1
    try:
        keeper = Keeper(entry, Wire(socket.socket(fileno=fd)))
        signal.signal(signal.SIGTERM, lambda *_: keeper.end("it was told to by SIGTERM"))
        warnings.showwarning = keeper.warn
        warnings.simplefilter("always", ExecutorWarning)
        keeper.run()
        status = 0
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)  # no exit hooks: what there was to be ended is
