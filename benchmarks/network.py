"""How many bytes were sent and received, by whom.

Three counters, because none sees everything:

- ``TCP_INFO`` of the sockets that a process holds (``tcpi_bytes_acked``,
  ``tcpi_bytes_received``): the payload of its TCP connections, without headers. Connections
  that were closed before the count are not in it.
- ``rchar`` and ``wchar`` of ``/proc/self/io``: what went through ``read`` and ``write``, which
  is how the pipes of process pools are used; files count too. Dask and ZeroMQ use sockets
  through ``recv`` and ``send``, which do not count here; Open MPI uses them through ``readv``
  and ``writev``, which do. So the larger of this and the above is taken, not their sum. Unix
  domain sockets and shared memory are in neither.
- the loopback interface in ``/proc/net/dev``: all that any process sent by TCP, with headers,
  closed connections and hops by way of a scheduler included. It is a turn's own traffic only
  where the turn has a network of its own (`own_network`).

All of it is Linux; elsewhere the counts are NaN.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import math
import os
import re
import socket
import struct
import sys
from pathlib import Path

__all__ = ["counts", "loopback", "own_network"]

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_ACKED_AND_RECEIVED = 120  # offset in struct tcp_info, include/uapi/linux/tcp.h: two __u64


def counts() -> tuple[int, float, float]:
    """Return this process's id, bytes sent and bytes received: by TCP or by pipes, whichever
    was more."""
    if not sys.platform.startswith("linux"):
        return os.getpid(), math.nan, math.nan
    text = Path("/proc/self/io").read_text()
    written, read = (
        float(re.search(rf"^{name}: (\d+)$", text, re.M)[1])  # type: ignore[index]
        for name in ("wchar", "rchar")
    )
    sent = received = 0.0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(number))) as copy:
                if copy.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            acked, got = struct.unpack_from("QQ", info, _ACKED_AND_RECEIVED)
            sent, received = sent + acked, received + got
    return os.getpid(), max(sent, written), max(received, read)


def loopback() -> float:
    """Return the bytes that the loopback interface has carried."""
    try:
        text = Path("/proc/self/net/dev").read_text()
    except OSError:
        return math.nan
    match = re.search(r"^\s*lo:\s*(\d+)", text, re.M)
    return float(match[1]) if match else math.nan


def own_network() -> bool:
    """Give this process and those that it will start a network of their own, with nothing but
    a loopback interface; False where that is not possible (root on Linux only).

    To be called while the process has one thread.
    """
    if not sys.platform.startswith("linux"):
        return False
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = b"lo".ljust(16, b"\0")
        old = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, name + bytes(16))
        (flags,) = struct.unpack_from("H", old, 16)
        new = name + struct.pack("H14x", flags | _IFF_UP)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, new)
    return True
