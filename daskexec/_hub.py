"""What a client is told, handed to the backends that share it. Floor 5.

The workers' messages, and the scheduler's word of results that were lost. All of it runs on the
client's own event loop.

Names of Dask that are used here: ``Client.subscribe_topic``, ``unsubscribe_topic``, ``id`` and
``status``; ``Client._stream_handlers``, to hear of lost results;
``Client._send_to_scheduler`` and ``scheduler.log_event``, to take over another client's tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
import weakref
from typing import Any, ClassVar, Protocol

from distributed import Client

from daskexec._calls import Outcome
from daskexec._messages import Cut, Slow, SoFar, Started, Waits

__all__ = ["Hub"]


class Listener(Protocol):
    """A backend, as its hub sees it."""

    executor: str

    def report(self, message: Any) -> None:
        """Take a message of a worker's."""

    def told(self, key: str, outcome: Outcome) -> None:
        """Take an outcome that came with an event, ahead of Dask's word that it is there."""

    def told_of(self, key: str, brief: Outcome) -> None:
        """Take what is known of an outcome that will be there: ahead of Dask's word, too."""

    def lost(self, key: str) -> None:
        """Take note that a result was lost with its worker."""


class Hub:
    """Hands what a client is told to the backends that share it.

    A client has one handler for each topic, so the backends cannot subscribe for themselves.
    The topic is the client's own id: the scheduler forgets it with the client. Lives on the
    client's loop; `_lock` guards the table of hubs alone.
    """

    _lock = threading.Lock()
    _hubs: ClassVar[weakref.WeakKeyDictionary[Client, Hub]] = weakref.WeakKeyDictionary()

    def __init__(self, client: Client) -> None:
        self._client = weakref.ref(client)
        # Dask's own handler, which is a method of the client.
        self._noted: Any = weakref.WeakMethod(client._stream_handlers["lost-data"])
        self._backends: dict[str, Listener] = {}

    @classmethod
    def of(cls, client: Client) -> Hub:
        with cls._lock:
            hub = cls._hubs.get(client)
            if hub is None:
                hub = cls._hubs[client] = cls(client)
                client.subscribe_topic(client.id, hub.on_event)
                client._stream_handlers["lost-data"] = hub.on_loss
        return hub

    def join(self, backend: Listener) -> None:
        self._backends[backend.executor] = backend

    def leave(self, backend: Listener) -> None:
        self._backends.pop(backend.executor, None)
        client = self._client()
        with self._lock:
            if self._backends or client is None or self._hubs.get(client) is not self:
                return
            del self._hubs[client]
        client._stream_handlers["lost-data"] = self._noted()
        if client.status == "running":
            # Or the scheduler would try to tell the client of its own end.
            client.unsubscribe_topic(client.id)

    async def adopt(self, topic: str, keys: list[str]) -> None:
        """Take the workers' messages on another client's topic, too, and want its tasks.

        That client must not let go of them before this returns.
        """
        client: Any = self._client()
        noted = asyncio.Event()
        asked = f"{topic}-{client.id}"
        client.subscribe_topic(topic, self.on_event)
        client._send_to_scheduler({"op": "client-desires-keys", "keys": keys})
        # Messages of a client are handled in order: once it hears of this topic, so was that.
        client.subscribe_topic(asked, lambda _: noted.set())
        while not noted.is_set():
            await client.scheduler.log_event(topic=asked, msg="")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(noted.wait(), 0.05)
        client.unsubscribe_topic(asked)

    def on_loss(self, key: str) -> None:
        self._noted()(key)
        for backend in [*self._backends.values()]:
            backend.lost(key)

    def on_event(self, event: tuple[float, Any]) -> None:
        _, message = event
        if not isinstance(message, dict):
            return
        backend = self._backends.get(message.get("daskexec", ""))
        if backend is not None and "done" in message:
            backend.told(message["done"], pickle.loads(message["outcome"]))
        elif backend is not None and "so_far" in message:
            backend.report(SoFar(message["so_far"], pickle.loads(message["outcome"])))
        elif backend is not None and "there" in message:
            backend.told_of(message["there"], pickle.loads(message["outcome"]))
        elif backend is not None and "cut" in message:
            cut = Cut(message["cut"], message["worker"], message["ran"], message["lifetime"])
            backend.report(cut)
        elif backend is not None and "waits" in message:
            backend.report(Waits(key=message["waits"], begun=message["begun"]))
        elif backend is not None and "slow" in message:
            backend.report(Slow(key=message["slow"], worker=message["worker"]))
        elif backend is not None:
            backend.report(
                Started(
                    key=message["key"],
                    worker=message["worker"],
                    name=message["name"],
                    pid=message["pid"],
                    worn=message.get("worn", False),
                    left=message.get("left", 0.0),
                    lifetime=message.get("lifetime", 0.0),
                    host=message.get("host", ""),
                    began=message.get("began", 0.0),
                )
            )
