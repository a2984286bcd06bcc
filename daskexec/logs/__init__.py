"""Access logs of web servers: one pass, on any executor, and a report.

Role: the log job's public names. Floor 10; a customer of the public names of daskexec,
without any private import: a program of yours could look just like it.

>>> from daskexec.logs import analyze
>>> from daskexec import get_executor
>>> with get_executor("processes") as executor:               # doctest: +SKIP
...     print(analyze(["access.log", "access.log.1.gz"], executor).to_json())
"""

from daskexec.logs.formats import find_format as find_format
from daskexec.logs.job import Interrupted as Interrupted
from daskexec.logs.job import analyze as analyze
from daskexec.logs.keys import decode_key as decode_key
from daskexec.logs.report import Report as Report
from daskexec.logs.selection import Selection as Selection
from daskexec.logs.selection import select as select
from daskexec.logs.tally import Counting as Counting

__all__ = [
    "Counting",
    "Interrupted",
    "Report",
    "Selection",
    "analyze",
    "decode_key",
    "find_format",
    "select",
]
