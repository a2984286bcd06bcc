"""Options of calls are checked where they are given."""

from __future__ import annotations

from typing import Any

import pytest

from daskexec.options import CallOptions


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"name": 3}, TypeError, "name must be a str"),
        ({"priority": "high"}, TypeError, "priority must be an int"),
        ({"retries": -1}, ValueError, "retries must be 0 or more"),
        ({"resources": "GPU"}, TypeError, "resources must map"),
        ({"resources": {"GPU": 0}}, ValueError, "positive"),
        ({"workers": []}, TypeError, "workers must be"),
        ({"workers": [1]}, TypeError, "workers must be"),
        ({"capture_output": "yes"}, TypeError, "capture_output must be"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    """A wrong option is an error that names it."""
    with pytest.raises(error, match=words):
        CallOptions(**options)


def test_one_worker_may_be_a_string() -> None:
    """A single worker needs no list."""
    assert CallOptions(workers="alpha").workers == ("alpha",)  # type: ignore[arg-type]
