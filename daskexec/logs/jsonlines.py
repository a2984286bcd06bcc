"""Access logs that are a JSON object a line: Caddy's, and nginx' with ``escape=json``.

Role: the format ``json``. Floor 10, part of the log job; pure, runs anywhere.

Caddy nests the request; nginx' objects are what its log_format makes them, and are read if
the names are those of nginx' variables. A line that is no object, or lacks client, time,
request or status, is malformed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from daskexec.logs.layouts import (
    ISO_TIME,
    TIME,
    LogFormat,
    Row,
    clf_time_of_epoch,
    clf_time_of_iso,
)

__all__ = ["JSON_LINES", "JsonLines"]

_TIME, _ISO_TIME = re.compile(TIME), re.compile(ISO_TIME)
_FIELDS = ("client", "time", "key", "referrer", "agent", "host")


class JsonLines(LogFormat):
    """Lines that are JSON objects. Its `pattern` finds what may be one."""

    def fits(self, line: bytes) -> bool:
        """Whether `line` is an object that says who asked for what, when, with what answer."""
        return self.pattern.match(line) is not None and _row(line) is not None

    def rows(self, block: bytes) -> list[Row]:
        """Read a block of whole lines: a row for each line that fits, in order."""
        return [row for line in self.pattern.findall(block) if (row := _row(line)) is not None]


def _row(line: bytes) -> Row | None:
    try:
        said = json.loads(line)
        if not isinstance(said, dict):
            return None
        asked = said.get("request")
        return _caddy(said, asked) if isinstance(asked, dict) else _nginx(said)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, OSError, RecursionError):
        return None  # not what the two servers write


def _caddy(said: Mapping[str, Any], asked: Mapping[str, Any]) -> Row:
    headers = {str(name).lower(): values for name, values in asked.get("headers", {}).items()}
    return _made(
        client=asked.get("client_ip") or asked.get("remote_ip") or asked["remote_addr"],
        time=said["ts"],
        request=f"{asked['method']} {asked['uri']} {asked.get('proto', 'HTTP/1.1')}",
        status=said["status"],
        sent=said.get("size", "-"),
        referrer=headers.get("referer", ["-"])[0],
        agent=headers.get("user-agent", ["-"])[0],
        host=asked.get("host", "-"),
    )


def _nginx(said: Mapping[str, Any]) -> Row:
    times = ("time_local", "time_iso8601", "msec", "time")
    time = next((said[name] for name in times if name in said), None)
    request = said.get("request")
    if request is None:
        method = said.get("request_method", "GET")
        request = f"{method} {said.get('request_uri') or said['uri']} HTTP/1.1"
    return _made(
        client=said["remote_addr"],
        time=time,
        request=request,
        status=said["status"],
        sent=said.get("body_bytes_sent", said.get("bytes_sent", "-")),
        referrer=said.get("http_referer", "-"),
        agent=said.get("http_user_agent", "-"),
        host=said.get("host") or said.get("http_host") or said.get("server_name") or "-",
    )


def _made(*, time: Any, request: Any, status: Any, sent: Any, **words: Any) -> Row:
    made = {name: _bytes(value) for name, value in words.items()}
    answer, size = _bytes(status), _bytes(sent)
    if not re.fullmatch(rb"[0-9]{3}", answer) or not re.fullmatch(rb"[0-9]{1,20}|-", size):
        raise ValueError("status or size is no number")
    made["key"] = b'%b" %b %b' % (_bytes(request), answer, size)
    made["time"] = _time(time)
    return tuple(made[name] for name in _FIELDS)


def _time(value: Any) -> bytes:
    text = _bytes(value)
    if _TIME.fullmatch(text):
        return text
    if _ISO_TIME.fullmatch(text):
        return clf_time_of_iso(text)
    return clf_time_of_epoch(float(value))


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value).encode()
    raise TypeError("neither text nor number")


JSON_LINES = JsonLines(
    "json",
    'a JSON object a line: Caddy\'s, or nginx\' {"remote_addr": "$remote_addr", ...}',
    re.compile(rb"^[ \t]*\{[^\n]*\}[ \t]*\r?$", re.MULTILINE),
    _FIELDS,
)
