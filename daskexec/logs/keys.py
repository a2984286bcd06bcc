r"""Keys of a log as text: one reversible way for programs, one safe way for people.

Role: the log job counts bytes; JSON and terminals want text. Floor 10, part of the log
job; pure.

In JSON (`encode_key`, `decode_key`) a key is its UTF-8 text, where each backslash is
doubled and each byte that is not valid UTF-8 is ``\xNN``. So ``decode_key`` gives back the
very bytes, and no lone surrogates trouble strict JSON readers.

On the terminal (`show_key`) backslashes stay as the server wrote them, and whatever is
not printable (control and escape characters, what would turn the reading direction) is
written as an escape: a log must not be able to steer the terminal it is shown on.
"""

from __future__ import annotations

import re

__all__ = ["decode_key", "encode_key", "show_key"]

_ESCAPE = re.compile(rb"\\(?:\\|x([0-9a-f]{2}))")


def encode_key(key: bytes) -> str:
    r"""Write a key as text that `decode_key` turns back into the same bytes.

    >>> print(encode_key(b'/caf\xc3\xa9 \\x16 \xff'))
    /café \\x16 \xff
    """
    return key.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def decode_key(text: str) -> bytes:
    r"""Return the bytes that `encode_key` was given.

    >>> decode_key(encode_key(b"\\x16 \xff")) == b"\\x16 \xff"
    True
    """
    return _ESCAPE.sub(
        lambda m: bytes([int(m[1], 16)]) if m[1] else b"\\", text.encode("utf-8", "strict")
    )


def show_key(key: bytes) -> str:
    r"""Write a key for people's eyes, on any terminal.

    >>> print(show_key(b"GET \x1b[31m \\x16"))
    GET \x1b[31m \x16
    """
    text = key.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
