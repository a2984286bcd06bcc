"""Results that stay where they are, with the workers, while somebody may need them. Floor 5.

Other calls need them (`daskexec._promises`), and Dask takes them from worker to worker. All of it
runs on the client's loop.

Names of Dask that are used here: ``Client.gather``; ``Future.key``, ``status`` and ``release``.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from daskexec._calls import Outcome

__all__ = ["Remote", "Staying"]


class Remote:
    """What keeps the value of a call on the cluster, while somebody may need it."""

    __slots__ = ("__weakref__", "future")

    def __init__(self, future: Any) -> None:
        self.future = future  # Dask forgets the value when this goes

    @property
    def lost(self) -> bool:
        """Whether Dask has given up on it."""
        return self.future.status in ("cancelled", "error")


class Staying:
    """The results of one backend's tasks that stay, or are to.

    Parameters
    ----------
    client : distributed.Client
    direct : bool or None
        Fetch them from the workers themselves; None leaves it to Dask.
    """

    def __init__(self, client: Any, direct: bool | None) -> None:
        self._client, self._direct = client, direct
        self._keys: set[str] = set()  # tasks of which the results are to stay
        self._briefs: dict[str, Outcome] = {}  # what was said of results that will be there
        self._remotes: weakref.WeakSet[Remote] = weakref.WeakSet()

    def leave(self, key: str) -> None:
        """Have the result of a task stay, if all of it but its value is told of."""
        self._keys.add(key)

    def told_of(self, key: str, brief: Outcome) -> None:
        """Take all of a result but its value."""
        self._briefs[key] = brief

    def brief_of(self, key: str) -> Outcome | None:
        """Return all of a result that is to stay but its value, if that was told."""
        return self._briefs.get(key) if key in self._keys else None

    def drop(self, key: str) -> None:
        """Have nothing more to do with a task."""
        self._keys.discard(key)
        self._briefs.pop(key, None)

    def keep(self, future: Any) -> Remote:
        """Have a result stay for as long as what is returned here lives."""
        remote = Remote(future)
        self._remotes.add(remote)
        return remote

    async def gather(self, remotes: Sequence[Remote]) -> list[Outcome | None]:
        """Fetch results that are there; None for what is lost."""
        batch = {remote.future.key: remote.future for remote in remotes}
        found = await self._client.gather(
            batch, errors="skip", direct=self._direct, asynchronous=True
        )
        return [found.get(remote.future.key) for remote in remotes]

    def release(self) -> None:
        """Keep nothing any more."""
        for remote in list(self._remotes):
            remote.future.release()
