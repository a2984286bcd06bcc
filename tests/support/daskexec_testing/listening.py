"""Where processes listen, as the kernel says: from ``/proc``, by the inodes of their sockets."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_LISTEN, _UNCONNECTED = "0A", "07"  # states of TCP; of UDP, where that is to receive


class Address(NamedTuple):
    """Where somebody can connect to."""

    host: str
    port: int


def listening(*pids: int) -> set[Address]:
    """Addresses at which these processes can be reached by TCP or UDP."""
    inodes: set[str] = set()
    for pid in pids:
        with suppress(OSError):  # it has ended
            for name in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    found = set()
    for table, state in (
        ("tcp", _LISTEN),
        ("tcp6", _LISTEN),
        ("udp", _UNCONNECTED),
        ("udp6", _UNCONNECTED),
    ):
        with suppress(FileNotFoundError):  # no IPv6 here
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == state and f"socket:[{fields[9]}]" in inodes:
                    found.add(_address(fields[1]))
    return found


def _address(text: str) -> Address:
    host, _, port = text.partition(":")
    words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return Address(str(ipaddress.ip_address(socket.inet_ntop(family, packed))), int(port, 16))
