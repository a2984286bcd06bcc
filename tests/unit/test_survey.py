"""Holding calls until the first worker is there."""

from __future__ import annotations

from daskexec._survey import Gate


def _shut() -> tuple[Gate, list[str]]:
    gate, probes = Gate(), []
    gate.shut(lambda: probes.append("probe"))
    return gate, probes


def test_what_comes_while_it_opens_goes_last() -> None:
    """Nothing overtakes what is held, from whichever thread it comes; then nothing is held."""
    gate, probes = _shut()
    assert gate.hold("a", 1)
    assert gate.hold("b", 2)
    assert probes == ["probe"]  # one probe is there in any case
    out = []
    for what in gate.open():
        out.append(what)
        if what == 1:
            assert gate.hold("c", 3)
            assert gate.is_shut
    assert out == [1, 2, 3]
    assert not gate.is_shut
    assert not gate.hold("d", 4)
    assert list(gate.open()) == []


def test_what_is_taken_back_is_not_let_out() -> None:
    """Neither before it opens nor while it does; and nothing once it is dropped."""
    gate, _ = _shut()
    for key in "abc":
        assert gate.hold(key, key)
    assert gate.take(["b", "x"]) == {"b": "b"}
    opening = gate.open()
    assert next(opening) == "a"
    assert gate.take(["a", "c"]) == {"c": "c"}
    assert list(opening) == []
    gate, _ = _shut()
    assert gate.hold("a", 1)
    gate.drop()
    assert not gate.is_shut
    assert list(gate.open()) == []
