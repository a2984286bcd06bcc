"""Which workers are meant by what a call names."""

from __future__ import annotations

import pytest

from daskexec._naming import Names, is_meant


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("tcp://10.0.0.1:4000", True),
        ("tcp://10.0.0.1:400", False),
        ("w1", True),
        ("w", False),
        ("10.0.0.1", True),
        ("10.0.0", False),
        ("0.0.0.1", False),
        ("10.0.0.1:4000", True),
    ],
)
def test_a_worker_is_meant_by_address_name_or_host(wanted: str, meant: bool) -> None:
    """As a whole, never by a part."""
    assert is_meant([wanted], "tcp://10.0.0.1:4000", "w1") is meant
    assert is_meant(["other", wanted], "tcp://10.0.0.1:4000", "w1") is meant


def test_where_they_are_now() -> None:
    """Several may have a name, one after the other or at once; nowhere is a place to wait."""
    names = Names()
    assert names.where(["a"]).workers == ()
    names.learn({"tcp://h:1": "a", "tcp://h:2": "b", "tcp://g:1": "a"})
    assert names.where(["a"]).workers == ("tcp://h:1", "tcp://g:1")
    assert names.where(["b", "g"]).workers == ("tcp://h:2", "tcp://g:1")
    assert names.where(["a"]).strict
    names.learn({"tcp://h:3": "a"})
    assert names.where(["a"]).workers == ("tcp://h:3",)
    assert names.where(["b"]).workers == ()
