"""Tallies kept as arrays: merged in any way, and looked at, they say what the tables say."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable

import pytest
from daskexec_testing.tallies import tally_blocks

from daskexec.logs.counts import piece_of
from daskexec.logs.formats import FORMATS
from daskexec.logs.report import Extract
from daskexec.logs.tally import PIECES, Counting, Tally, merge, pieces_of, settle
from daskexec.logs.tally import tally_blocks as count

arrays = pytest.importorskip("daskexec.logs.engines.arrays", reason="needs numpy and pyarrow")


def lines_of(seed: int, number: int, kind: str) -> bytes:
    """Lines with many keys in common, some empty ones and some that are odd."""
    dice = random.Random(seed)
    paths = [b"/", b"/a", *(b"/x/%d" % n for n in range(300))]
    agents = [b"", b"-", *(b"agent %d" % n for n in range(20))]
    lines = []
    for _ in range(number):
        line = b'10.0.%d.%d - - [%02d/May/2015:10:05:03 +0000] "GET %b HTTP/1.1" %d %b' % (
            dice.randrange(3), dice.randrange(90), dice.randrange(1, 9), dice.choice(paths),
            dice.choice((200, 404)), dice.choice((b"-", b"0", b"512", b"12345")),
        )  # fmt: skip
        if kind == "combined":
            line += b' "%b" "%b"' % (dice.choice((b"-", b"", b"http://r/")), dice.choice(agents))
        lines.append(line if dice.random() < 0.95 else b'x - - "' + line)
    return b"\n".join(lines) + b"\n"


@pytest.fixture(params=["as it is", "on heaps", "with large offsets", "at once"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done with many keys only, done with few."""
    for name, value in {
        "on heaps": [("_HEAP", 7)],
        "with large offsets": [("_LARGE", 3_000), ("_HEAP", 100)],
        "at once": [("_ENOUGH", 0)],
        "as it is": [],
    }[request.param]:
        monkeypatch.setattr(arrays, name, value)


def tallies(engine: Callable[[int], str], kinds: tuple[str, ...]) -> list[Tally]:
    return [
        count(
            [lines_of(n, 150, kinds[n % len(kinds)])],
            FORMATS[kinds[n % len(kinds)]],
            n,
            Counting(engine=engine(n)),
        )
        for n in range(12)
    ]


@pytest.mark.parametrize("kinds", [("combined",), ("common",), ("common", "combined")])
@pytest.mark.parametrize("mixed", [False, True], ids=["arrow", "mixed with stdlib"])
@pytest.mark.usefixtures("ways")
def test_they_say_what_tables_say(kinds: tuple[str, ...], mixed: bool) -> None:
    whole = Tally()
    for tally in tallies(lambda n: "stdlib", kinds):
        whole = merge(whole, tally)
    wanted = Extract.of(whole, 15)
    made = tallies(lambda n: "stdlib" if mixed and n % 3 == 0 else "arrow", kinds)
    random.Random(5).shuffle(made)
    while len(made) > 1:  # as a tree, on its way between processes
        one, other = (pickle.loads(pickle.dumps(made.pop())) for _ in range(2))
        made.insert(0, merge(one, other))
    assert made[0].arrays is not None
    pieces = pieces_of(pickle.loads(pickle.dumps(made[0])))
    found = [Extract.of(piece, 15) for piece in pieces]
    for part in found[1:]:
        found[0].add(part)
    assert found[0] == wanted
    assert Extract.of(made[0], 15) == wanted
    settled = settle(made[0])
    assert settled.arrays is None
    assert settled == whole


def test_numbers_too_great_for_arrays() -> None:
    """A tally that has both, arrays and a number of 20 digits, is right all the same."""
    line = b'1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET /%b HTTP/1.1" 200 %b "-" "ua"\n'
    usual, great = line % (b"a", b"512"), line % (b"b", b"9" * 20)
    tally = count([usual * 100 + great], FORMATS["combined"], 0, Counting(engine="arrow"))
    assert tally.arrays is not None
    found = Extract.of(tally, 5)
    assert found.top["paths_by_bytes"] == [(b"/b", int(b"9" * 20)), (b"/a", 51_200)]
    assert (found.clients, found.visitors) == (1, 1)
    assert settle(tally) == tally_blocks([usual * 100 + great], FORMATS["combined"])


def test_sums_too_great_for_arrays() -> None:
    """So many lines that sent 10**12 bytes that no 64-bit number holds their sum."""
    line = b'1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 %d "-" "ua"\n'
    block = line % (10**12 - 1) * 1_000
    tally = count([block], FORMATS["combined"], 0, Counting(engine="arrow"))
    for _ in range(14):  # each doubles it
        tally = merge(tally, pickle.loads(pickle.dumps(tally)))
    sent = 2**14 * 1_000 * (10**12 - 1)
    assert sent > 2**63
    assert Extract.of(tally, 5).top["paths_by_bytes"] == [(b"/", sent)]
    assert settle(tally).path_bytes == {b"/": sent}


@pytest.mark.parametrize("size", [20, 3_000])
@pytest.mark.parametrize("kind", ["binary", "large_binary"])
def test_many_are_put_as_each_is(size: int, kind: str) -> None:
    """Into the pieces of a tally, by numpy and by Python: also what is short, or empty."""
    pa = pytest.importorskip("pyarrow")
    dice = random.Random(size)
    keys = [b"", b"a", b"\xff" * 8, *(dice.randbytes(dice.randrange(20)) for _ in range(size))]
    for some in (keys, keys[:1], keys[:2], []):
        marks = arrays._marks(pa.array(some, getattr(pa, kind)()))
        assert [int(mark) * PIECES >> 64 for mark in marks] == [piece_of(key) for key in some]
    places = [piece_of(key) for key in keys]
    assert size < 100 or min(places.count(place) for place in range(PIECES)) > size / 5
