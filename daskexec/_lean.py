"""What servers and streams of Dask do that nobody here needs: left out, for speed. Floor 1.

Names of Dask that are used here: ``BatchedSend.interval`` and ``recent_message_log``;
``Server.periodic_callbacks`` and ``monitor``; ``profile`` of a server's event loop.
"""

from __future__ import annotations

from collections import deque
from typing import Any

__all__ = ["be_eager", "leave_out_meters", "leave_out_profile"]

#: Seconds between two looks of a server at the memory of its process.
_MEMORY_READ = 2.0


def be_eager(stream: Any) -> None:
    """Have a ``BatchedSend`` of Dask's send each message at once, and keep none.

    It waits for some milliseconds after the last one; what comes while a message is on its way
    still goes together. And it keeps the last thousand messages below a megabyte, for debugging.
    """
    stream.interval = 0
    stream.recent_message_log = deque(maxlen=0)


def leave_out_profile() -> None:
    """Keep Dask from sampling the stack of this thread's event loop, 100 times a second."""
    from tornado.ioloop import IOLoop

    vars(IOLoop.current()).setdefault("profile", deque())


def leave_out_meters(server: Any) -> None:
    """Take from a Dask server that is not started what feeds its dashboard alone.

    Sampling the stacks of running calls and measuring the event loop take 2 % of a core, reading
    the host's counters twice a second another 0.3 %. The process' memory is still read.
    """
    for name in ("profile", "profile-cycle", "tick", "ticks", "shift_counters"):
        server.periodic_callbacks.pop(name, None)
    server.periodic_callbacks["monitor"].callback_time = 1000 * _MEMORY_READ
    for name in ("host_net_io", "host_disk_io"):
        vars(server.monitor)[f"monitor_{name.removeprefix('host_')}"] = False
        for way in ("read", "write"):
            server.monitor.quantities.pop(f"{name}.{way}_bps", None)
