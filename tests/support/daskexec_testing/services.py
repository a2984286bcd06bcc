"""Services that some tests need, and what happens where one is not there."""

from __future__ import annotations

import os

import pytest


def require(word: str, reason: str) -> None:
    """Skip, or fail where DASKEXEC_REQUIRE names `word`."""
    if word in os.environ.get("DASKEXEC_REQUIRE", "").split():
        pytest.fail(f"DASKEXEC_REQUIRE names {word}: {reason}", pytrace=False)
    pytest.skip(reason)
