"""What every worker is to have, those that join later too: an initializer, code. Floor 5.

All of it runs on the client's loop.

Names of Dask that are used here: ``Client.register_plugin`` and ``unregister_worker_plugin``.
"""

from __future__ import annotations

from typing import Any

from daskexec._code import Bundle, CodePlugin
from daskexec._remote import InitializerPlugin

__all__ = ["Bringing"]


class Bringing:
    """What one executor has brought to the workers of a client's cluster.

    Parameters
    ----------
    client : distributed.Client
    executor : str
        Its id.
    inherits : bool
        The workers have the initializer already, from another process.
    """

    def __init__(self, client: Any, executor: str, inherits: bool) -> None:
        self._client, self._executor, self._inherits = client, executor, inherits
        self._plugins: list[str] = []

    async def initializer(self, blob: bytes | None) -> None:
        """Bring the initializer, if there is one."""
        if blob is None:
            return
        plugin = InitializerPlugin(self._executor, blob)
        self._plugins.append(plugin.name)
        if self._inherits:
            return
        responses = await self._client.register_plugin(plugin, name=plugin.name)
        for response in (responses or {}).values():
            if isinstance(response, dict) and response.get("status") == "error":
                raise RuntimeError(f"a worker refused the initializer: {response}")

    async def code(self, bundle: Bundle) -> None:
        """Bring code; raises what a worker has raised that could not take it."""
        plugin = CodePlugin(self._executor, bundle)
        if plugin.name not in self._plugins:
            self._plugins.append(plugin.name)
        await self._client.register_plugin(plugin, name=plugin.name)

    async def end(self) -> None:
        """Have all of it forgotten."""
        for name in self._plugins:
            await self._client.unregister_worker_plugin(name)
