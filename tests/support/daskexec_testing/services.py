"""Services that some tests need and that are not on every machine."""

from __future__ import annotations

import os

import pytest


def require(word: str, reason: str) -> None:
    """Skip, or fail where DASKEXEC_REQUIRE names `word`."""
    if word in os.environ.get("DASKEXEC_REQUIRE", "").split():
        pytest.fail(f"DASKEXEC_REQUIRE names {word!r}: {reason}", pytrace=False)
    pytest.skip(reason)
