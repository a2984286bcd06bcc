"""Names and folders of clusters that keepers have."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from daskexec import _state
from daskexec._kept import look_up, packed, unpacked


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "daskexec" / "clusters"


def entry(name: str, **fields: object) -> _state.Entry:
    """Write down a cluster that has no keeper any more."""
    folder, lock = _state.new_folder("some config: of a file")
    os.close(lock)
    os.rename(folder, folder.with_name(name))
    made = _state.Entry(name, "config", "local", os.uname().nodename, **fields)  # type: ignore[arg-type]
    made.save()
    return made


@pytest.mark.parametrize("name", ["", "..", ".x", "a/b", "a b", "-x", "x" * 65, "\n", None, 3])
def test_names_that_cannot_be(name: object) -> None:
    """A name is a plain file name, in whatever folder."""
    with pytest.raises(ValueError, match="letters"):
        _state.check_name(name)


@pytest.mark.parametrize("name", ["night", "2026-11-26_run.3", "x" * 64, "Z"])
def test_names_that_can(name: str) -> None:
    """Letters of all kinds, digits, and what joins them."""
    _state.check_name(name)


def test_results_are_kept_until_they_are_not(state: Path) -> None:
    """What has ended stays as long as it was to be kept, and is then removed."""
    entry("kept", left=True, ended=1.0, until=time.time() + 100)
    entry("over", left=True, ended=1.0, until=time.time() - 1)
    entry("used", ended=1.0)
    assert [one.name for one in _state.entries()] == ["kept"]
    assert os.listdir(state) == ["kept"]


def test_keepers_that_were_killed(state: Path) -> None:
    """What was left and has lost its keeper is known to have ended."""
    entry("lost", left=True, until=time.time() + 100)
    (found,) = _state.entries()
    assert found.ended == pytest.approx(time.time(), abs=60)
    assert "without a word" in found.why
    assert look_up("lost").ended == found.ended


def test_other_hosts() -> None:
    """What runs elsewhere cannot be looked at from here, and is left alone."""
    made = entry("far", left=True)
    made.host = "elsewhere"
    made.save()
    assert [(one.name, one.ended, one.here) for one in _state.entries()] == [("far", None, False)]


def test_rubbish_is_no_entry(state: Path) -> None:
    """A file that is no entry is passed over, and what of it is old is removed."""
    folder, lock = _state.new_folder("x")
    os.close(lock)
    (folder / "entry.json").write_text("{")
    assert _state.entries() == []
    os.utime(folder, (0, 0))
    assert _state.entries() == []
    assert os.listdir(state) == []


def test_certificates_survive_the_socket() -> None:
    """The certificates of a cluster come through as they are."""
    pytest.importorskip("cryptography")
    from distributed import Security

    made = Security.temporary()
    arrived = unpacked(packed(made))
    assert arrived.tls_client_key == made.tls_client_key
    assert arrived.get_connection_args("client")["ssl_context"] is not None
