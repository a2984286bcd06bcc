"""The state folder: what is known, on disk, of the clusters that keepers hold. Floor 1.

``$XDG_STATE_HOME/daskexec/clusters`` (or ``~/.local/state/...``), a folder for each cluster::

    night/            named as the cluster was left; before that config, process, chance
      lock            held by the keeper while it lives: the kernel frees it however it ends
      entry.json      `Entry`
      log.txt         what the keeper and Dask in it had to say
      futures.json    names of the calls that were left, and the number of each
      results         what they came to (`daskexec._parcel`)

All of it is readable by its user only. No key of TLS is ever in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Entry",
    "check_name",
    "entries",
    "find",
    "is_held",
    "log_tail",
    "moment",
    "new_folder",
    "remove",
    "write",
]

_NAME = re.compile(r"[A-Za-z0-9][\w.\-]{0,63}")
#: Seconds in which a new folder gets its entry; one without is rubbish after that.
_NEW = 60.0


@dataclass
class Entry:
    """A cluster and its keeper.

    Attributes
    ----------
    name : str
        What it is attached by; it is also the name of its folder.
    config, kind, address : str
        The config it was started from, its kind, the address of its scheduler.
    host : str
        Where the keeper runs.
    pid, client : int
        Processes: the keeper, and whoever uses the cluster; 0 for nobody.
    since : float
        When it was started, in seconds since the epoch.
    socket : str
        Path of the keeper's socket.
    left : bool
        It was detached: it goes on without a client.
    idle_timeout, keep : float
        Seconds: without work and client until it ends; until it ends anyway, and results go.
    until : float or None
        When `keep` is over, in seconds since the epoch.
    ended : float or None
        When it ended.
    why : str
        Why it ended.
    """

    name: str
    config: str
    kind: str
    host: str
    pid: int = 0
    client: int = 0
    since: float = 0.0
    address: str = ""
    socket: str = ""
    left: bool = False
    idle_timeout: float = 0.0
    keep: float = 0.0
    until: float | None = None
    ended: float | None = None
    why: str = ""

    @property
    def folder(self) -> Path:
        """Its folder."""
        return clusters() / self.name

    @property
    def here(self) -> bool:
        """Whether its keeper runs, or ran, on this host."""
        return self.host == os.uname().nodename

    def save(self) -> None:
        """Write it to its folder."""
        write(self.folder / "entry.json", json.dumps(asdict(self), indent=1).encode())


def clusters() -> Path:
    """Return the folder of folders; it need not be there."""
    root = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(root).expanduser() / "daskexec" / "clusters"


def check_name(name: Any) -> None:
    """Raise ValueError where a cluster cannot be called so."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"a cluster cannot be left as {name!r}: a name has up to 64 letters, digits, "
            f"'-', '_' and '.', and begins with a letter or digit"
        )


def write(path: Path, data: bytes) -> None:
    """Write a file in one step, for the user's eyes only."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)  # of mode 0600
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def new_folder(config: str) -> tuple[Path, int]:
    """Make the folder of a new cluster; return it, and the descriptor of its held lock."""
    root = clusters()
    root.parent.parent.mkdir(parents=True, exist_ok=True)
    for folder in (root.parent, root):
        folder.mkdir(mode=0o700, exist_ok=True)
    stem = re.sub(r"[^\w.\-]", "_", config) or "cluster"
    prefix = f"{stem}-{os.getpid()}-"
    folder = Path(tempfile.mkdtemp(dir=root, prefix=prefix if _NAME.match(prefix) else "c"))
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


def is_held(folder: Path) -> bool:
    """Tell whether the keeper of a cluster, on this host, lives."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def log_tail(folder: Path, lines: int = 15) -> str:
    """Return the last lines of a keeper's log; "" if there is none."""
    try:
        text = (folder / "log.txt").read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def moment(seconds: float) -> str:
    """Return a time, in seconds since the epoch, for people, of this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def entries() -> list[Entry]:
    """Return what is there, the oldest first; what is stale or has expired is removed."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for folder in sorted(clusters().iterdir()):
            entry = _read(folder)
            if entry is not None:
                found.append(entry)
    return sorted(found, key=lambda entry: entry.since)


def find(name: str) -> Entry | None:
    """Return the entry of a name."""
    return next((entry for entry in entries() if entry.name == name), None)


def remove(name: str) -> None:
    """Remove the folder of a cluster whose keeper has ended, and that of its socket."""
    folder = clusters() / name
    with contextlib.suppress(OSError, ValueError, KeyError):
        where = json.loads((folder / "entry.json").read_text())["socket"]
        if where:
            shutil.rmtree(os.path.dirname(where), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _read(folder: Path) -> Entry | None:
    try:
        entry = Entry(**json.loads((folder / "entry.json").read_text()))
        entry.name = folder.name  # it may be on its way to another name
    except (OSError, ValueError, TypeError):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _NEW and not is_held(folder):
                shutil.rmtree(folder, ignore_errors=True)
        return None
    if not entry.here or is_held(folder):
        return entry  # what goes on elsewhere cannot be known here
    if entry.ended is None:  # its keeper was killed, or the machine went down
        if entry.socket:
            shutil.rmtree(os.path.dirname(entry.socket), ignore_errors=True)
        entry.ended, entry.why = time.time(), "its keeper process ended without a word"
        if entry.left:
            with contextlib.suppress(OSError):
                entry.save()
    if not entry.left or time.time() > (entry.until or 0.0):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return entry
