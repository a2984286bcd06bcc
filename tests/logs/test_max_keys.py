"""A bounded tally: small, and right about how wrong it may be."""

from __future__ import annotations

import pickle
import random
from collections import Counter

import pytest
from daskexec_testing.reference_log import reference_tally
from daskexec_testing.tallies import tally_blocks

from daskexec.logs import analyze
from daskexec.logs.counts import Tally, merge
from daskexec.logs.formats import FORMATS
from daskexec.logs.sketch import EMPTY, STANDARD_ERROR, estimate, merged, with_keys
from daskexec.logs.tally import Counting, arrow_installed
from daskexec.select import SerialExecutor

LINE = b'%b - - [17/May/2015:10:05:03 +0000] "GET /%d HTTP/1.1" 404 %d "http://r/%d" "ua"\n'
TABLES = ("paths", "path_bytes", "not_found", "clients", "referrers", "agents")
MAX_KEYS = 300


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """Few keys with many hits, many with one."""
    dice = random.Random(3)
    ranks = [int(dice.paretovariate(0.3)) % 10**8 for _ in range(12_000)]
    return [LINE % (b"10.%d.0.%d" % divmod(r, 250), r % 10**6, r % 900, r % 10**5) for r in ranks]


@pytest.mark.parametrize(
    "engine",
    [
        "stdlib",
        pytest.param(
            "arrow", marks=pytest.mark.skipif(not arrow_installed(), reason="no pyarrow")
        ),
    ],
)
def test_the_stated_error_holds(lines: list[bytes], engine: str) -> None:
    """However parts are merged, no table outgrows its bound, and each count, shown or
    missing, is at most the stated number below the true one and never above."""
    counting = Counting(engine=engine, max_keys=MAX_KEYS)
    parts = [
        tally_blocks([b"".join(lines[a : a + 500])], FORMATS["combined"], a, counting)
        for a in range(0, len(lines), 500)
    ]
    dice = random.Random(5)
    while len(parts) > 1:
        at = dice.randrange(len(parts) - 1)
        parts[at : at + 2] = [merge(parts[at], pickle.loads(pickle.dumps(parts[at + 1])))]
    whole, truth = parts[0], reference_tally(b"".join(lines))
    assert whole.requests == len(lines)
    assert whole.bytes_sent == truth["bytes_sent"]
    for name in TABLES:
        table: Counter[bytes] = getattr(whole, name)
        assert len(table) <= 2 * MAX_KEYS
        lost = whole.lost.get(name, 0)
        assert all(0 <= count - table[key] <= lost for key, count in truth[name].items())
    assert whole.lost["clients"] > 0
    assert "agents" not in whole.lost
    assert sum(len(c) for day in whole.visitors.values() for c in day.values()) <= 2 * MAX_KEYS
    # A single agent and day: visitors and clients are as many.
    clients = len(truth["clients"])
    assert clients > 5 * MAX_KEYS
    assert abs(whole.distinct_clients - clients) < 5 * STANDARD_ERROR * clients
    assert abs(whole.distinct_visitors - clients) < 5 * STANDARD_ERROR * clients


def test_below_the_bound_everything_is_exact(lines: list[bytes]) -> None:
    """A bound that is not reached changes nothing."""
    blocks = [b"".join(lines[:600])]
    bounded = tally_blocks(blocks, FORMATS["combined"], 0, Counting(max_keys=600))
    exact = tally_blocks(blocks, FORMATS["combined"])
    assert bounded.lost == bounded.sketches == {}
    bounded.max_keys = 0
    assert bounded == exact


def test_the_report_says_it(lines: list[bytes], tmp_path) -> None:
    """A report of a bounded tally says of which table, and by how much; others say nothing."""
    path = tmp_path / "a.log"
    path.write_bytes(b"".join(lines))
    with SerialExecutor() as executor:
        bounded = analyze(
            [path], executor, part_size=100_000, counting=Counting(max_keys=MAX_KEYS)
        )
        exact = analyze([path], executor, part_size=100_000)
    assert exact.inexact == {}
    assert exact.notes == []
    assert bounded.to_dict()["inexact"] == bounded.inexact
    assert bounded.inexact["clients_distinct"] == pytest.approx(STANDARD_ERROR, rel=0.1)
    assert bounded.inexact["paths"] > 0
    assert any(
        "table paths" in note and f"{bounded.inexact['paths']:,}" in note for note in bounded.notes
    )
    assert bounded.top["paths"][0] == exact.top["paths"][0]  # that far from the bound
    assert bounded.requests == exact.requests


@pytest.mark.parametrize("number", [0, 1, 100, 50_000, 200_000])
def test_sketches_count(number: int) -> None:
    """An estimate is within five standard errors, and merging is adding."""
    keys = [b"%d" % n for n in range(number)]
    whole = with_keys(EMPTY, keys)
    assert abs(estimate(whole) - number) <= 5 * STANDARD_ERROR * number
    half = number // 2
    assert merged(with_keys(EMPTY, keys[half:]), with_keys(EMPTY, keys[: half + 7])) == whole
    assert with_keys(whole, keys[:50]) == whole


def test_a_new_tally_is_neutral(lines: list[bytes]) -> None:
    """Merging with a new tally keeps the bound, from either side."""
    counting = Counting(max_keys=10)
    for swap in (False, True):
        tally = tally_blocks([b"".join(lines[:50])], FORMATS["combined"], 0, counting)
        assert (merge(tally, Tally()) if swap else merge(Tally(), tally)).max_keys == 10
