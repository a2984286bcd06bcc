"""Checks of arguments that several doors take, in one place and in the same words. Floor 0."""

from __future__ import annotations

import operator
import re
from typing import Any

__all__ = ["check_chunksize", "check_count", "check_seconds", "scheduler_address"]

_SCHEMES = ("tcp", "tls", "ws", "wss", "ucx", "inproc")
_PORTLESS = ("inproc",)
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)")
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})/?")


def scheduler_address(text: str, origin: str = "") -> str | None:
    """Return the address of a scheduler, with its scheme; None where `text` is no address.

    Parameters
    ----------
    text : str
        ``"tcp://host:8786"``, or ``"host:8786"`` for the same.
    origin : str
        Where it came from, for the error.

    Raises
    ------
    ValueError
        It looks like an address, and Dask could not connect to it.
    """
    url = _URL.fullmatch(text)
    scheme, rest = (url["scheme"].lower(), url["rest"]) if url else ("tcp", text)
    if url and scheme not in _SCHEMES:
        raise ValueError(
            f"{text!r}{origin}: Dask has no {scheme}:// addresses; "
            "a scheduler's address looks like 'tcp://host:8786' or 'tls://host:8786'."
        )
    if scheme not in _PORTLESS:
        match = _HOST_PORT.fullmatch(rest)
        if match is None or int(match["port"]) > 65535:
            if url is None and match is None:
                return None
            raise ValueError(
                f"{text!r}{origin} is no complete address: host and port (0 to 65535) are "
                "needed, such as 'tcp://host:8786'."
            )
    return f"{scheme}://{rest}"


def check_seconds(name: str, value: Any) -> None:
    """Refuse what is no number of seconds over 0.

    Raises
    ------
    TypeError, ValueError
        Names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not value > 0:
        raise ValueError(f"{name} must be a number of seconds greater than 0, not {value}")


def check_count(name: str, value: Any) -> None:
    """Refuse what is neither None nor a whole number over 0.

    Raises
    ------
    TypeError, ValueError
        Names the argument.
    """
    if value is None:
        return
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int or None, not {type(value).__name__}") from None
    if number <= 0:
        raise ValueError(f"{name} must be greater than 0, not {number}")


def check_chunksize(chunksize: Any, buffersize: Any) -> None:
    """Refuse sizes that `map` cannot take, in the stdlib's words.

    Raises
    ------
    TypeError, ValueError
        Names the argument.
    """
    if chunksize is not None and chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")
