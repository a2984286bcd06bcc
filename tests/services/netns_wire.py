"""A bad network between network namespaces: ``netns_wire.py MILLISECONDS[,PERCENT] NAMESPACE...``.

Each namespace has a TAP device ``eth0``. A frame that leaves one arrives at the device with its
address of destination, or at all others if it is for everybody, so many milliseconds later,
unless it is among the percent that are lost. The order is kept, and the bandwidth is what this
process can do. For kernels that have no ``sch_netem``, which does this and more.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import os
import random
import select
import struct
import sys
import time

_SET_INTERFACE, _TAP_WITHOUT_HEADER = 0x400454CA, 0x1002
_LONGEST = 1 << 16


def tap_in(namespace: str) -> tuple[bytes, int]:
    """Open the device of a namespace; return its hardware address and a descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        if libc.setns(there.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
        try:
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            request = struct.pack("16sH22x", b"eth0", _TAP_WITHOUT_HEADER)
            fcntl.ioctl(tap, _SET_INTERFACE, request)
            answer = fcntl.ioctl(tap, 0x8927, struct.pack("16s24x", b"eth0"))  # SIOCGIFHWADDR
        finally:
            libc.setns(home.fileno(), 0)
    return answer[18:24], tap


def main() -> None:
    """Pass on frames until ended."""
    milliseconds, _, percent = sys.argv[1].partition(",")
    delay, lost = float(milliseconds) / 1000, float(percent or 0) / 100
    chance = random.Random(1)
    by_address = dict(tap_in(namespace) for namespace in sys.argv[2:])
    taps = list(by_address.values())
    on_the_way: collections.deque[tuple[float, list[int], bytes]] = collections.deque()
    print("ready", flush=True)
    while True:
        wait = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        for tap in select.select(taps, [], [], wait)[0]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame = os.read(tap, _LONGEST)
                    if lost and chance.random() < lost:
                        continue
                    target = by_address.get(frame[:6])
                    targets = taps if target is None else [target]
                    due = time.monotonic() + delay
                    on_the_way.append((due, [each for each in targets if each != tap], frame))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, targets, frame = on_the_way.popleft()
            for target in targets:
                with contextlib.suppress(OSError):  # its queue is full, or it is gone
                    os.write(target, frame)


if __name__ == "__main__":
    main()
