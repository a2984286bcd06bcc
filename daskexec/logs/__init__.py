"""Access logs of web servers: one pass, on any executor, and a report.

Role: the log job's public names. Floor 10; a customer of the public names of daskexec,
without any private import: a program of yours could look just like it. Names are loaded when they
are first used: the workers need a few of its modules only.

>>> from daskexec.logs import analyze
>>> from daskexec import get_executor
>>> with get_executor("processes") as executor:               # doctest: +SKIP
...     print(analyze(["access.log", "access.log.1.gz"], executor).to_json())
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daskexec.logs.formats import find_format as find_format
    from daskexec.logs.job import Interrupted as Interrupted
    from daskexec.logs.job import analyze as analyze
    from daskexec.logs.keys import decode_key as decode_key
    from daskexec.logs.report import Report as Report
    from daskexec.logs.selection import Selection as Selection
    from daskexec.logs.selection import select as select
    from daskexec.logs.tally import Counting as Counting

_HOMES = {
    "Counting": "tally",
    "Interrupted": "job",
    "Report": "report",
    "Selection": "selection",
    "analyze": "job",
    "decode_key": "keys",
    "find_format": "formats",
    "select": "selection",
}

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'daskexec.logs' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"daskexec.logs.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
