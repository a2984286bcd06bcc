"""How the job uses executors: tallies merged where they are, interruption, plans, host names."""

from __future__ import annotations

import copy
import gzip
import io
import json
import pickle
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import fields, replace
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from daskexec import WorkerDied
from daskexec.cli import cli
from daskexec.logs import Report, analyze, hosts
from daskexec.logs.counting import FAN_IN, PartCounter, merge_piece
from daskexec.logs.demo import Demo, write_demo
from daskexec.logs.job import JOB, Interrupted, plan, run
from daskexec.logs.outline import merge_levels, outline
from daskexec.logs.progress import showing, told
from daskexec.logs.saved import merge_saved, save
from daskexec.logs.split import cut
from daskexec.logs.tally import PIECES, Counting, Tally, merge, pieces_of, settle, tally_part
from daskexec.select import SerialExecutor


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return write_demo(tmp_path_factory.mktemp("job"), seed=3, lines=3_000)


def analyze_here(files: list[Any], **options: Any) -> Report:
    with SerialExecutor() as executor:
        return analyze(files, executor, **options)


class Remote(Executor):
    """An executor that takes futures as arguments, and notes what is called."""

    takes_futures = True

    def __init__(self, workers: tuple[str | None, ...] = ()) -> None:
        self._pool = ThreadPoolExecutor(4)
        self._workers = cycle(workers) if workers else None
        self.calls: list[str] = []
        self.options: dict[str, Any] = {}
        self.made: list[tuple[str, dict[str, Any], set[str]]] = []  # options, and where inputs are
        self.dead: set[str] = set()

    def with_options(self, **options: Any) -> Remote:
        view = copy.copy(self)
        view.options = self.options | options
        return view

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls.append(fn.__name__)
        inputs = [one for arg in args if isinstance(arg, list) for one in arg]
        places = {one.info().worker for one in inputs} if self._workers is not None else set()
        self.made.append((fn.__name__, self.options, places))
        # Oldest first: none waits for a later one.
        future: Any = self._pool.submit(self._call, fn, args)
        if self._workers is not None:
            place = next(iter(places)) if len(places) == 1 else next(self._workers)
            future.info = lambda: SimpleNamespace(worker=place)
        return cast("Future[Any]", future)

    def _call(self, fn: Any, args: tuple[Any, ...]) -> Any:
        for one in args:
            if getattr(one, "path", None) in self.dead:
                raise WorkerDied("count_packed", reason="killed by SIGKILL")
        return fn(*[self._value(one) for one in args])

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, list):
            return [self._value(one) for one in argument]
        return argument.result() if isinstance(argument, Future) else argument

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


@pytest.mark.parametrize(("part_size", "parts"), [(1 << 20, 1), (60_000, 10), (6_000, 90)])
def test_tallies_are_merged_where_they_are(made: Demo, part_size: int, parts: int) -> None:
    """Where futures are arguments, tallies are merged by calls, some at a time and before other
    calls, and the report is the same."""
    wanted = analyze_here([made.plain]).to_json()
    with Remote() as executor:
        todo = plan([made.plain], part_size=part_size)
        assert run(todo, executor, window=16, keep_tally=False).to_json() == wanted
    number = len(todo.files[0][1])
    assert number >= parts
    calls = Counter(executor.calls)
    assert calls["count_packed"] == number
    assert calls["merge_piece"] <= PIECES * -(-number // (FAN_IN - 1))
    assert calls["reduce_piece"] == PIECES
    if number > 32:  # not only at the end
        assert executor.calls.index("merge_piece") < executor.calls.index("count_packed") + 60
    for name, options, _ in executor.made:  # only what is asked for comes here
        assert options.get("remote", False) is (name in ("count_packed", "merge_piece"))
        assert options.get("priority", 0) == (name in ("merge_piece", "reduce_piece"))


def test_tallies_of_one_worker_are_merged_there(made: Demo) -> None:
    """Those of one worker with each other; each piece of all is brought to one in time."""
    wanted = analyze_here([made.plain]).to_json()
    with Remote(("a", "b", "c")) as executor:
        todo = plan([made.plain], part_size=3_000)
        assert run(todo, executor, window=16, keep_tally=False).to_json() == wanted
    places = [places for name, _, places in executor.made if name == "merge_piece"]
    early = places[: len(places) // PIECES // 2 * PIECES]
    assert len(early) >= 3 * PIECES
    assert all(len(each) == 1 for each in early)
    brought = [
        (n, options) for n, (name, options, _) in enumerate(executor.made) if name == "bring"
    ]
    assert [options["workers"] for _, options in brought] == [["a"], ["b"], ["c"], ["a"]]
    assert all(n < executor.calls.index("reduce_piece") for n, _ in brought)


def test_parts_that_come_in_pieces_and_whole_ones(any_executor: Executor, tmp_path: Path) -> None:
    """What only the strict expression can read is counted with what is counted in columns, be
    it in parts of its own; the same with each engine."""
    pytest.importorskip("pyarrow", reason="the engine arrow needs it")
    line = (
        '10.0.%d.%d - - [17/May/2015:10:05:%02d +0000] "%s /p/%d HTTP/1.1" 200 %d "-" "agent %d"\n'
    )
    plain, odd = (
        "".join(line % (n % 3, n % 90, n % 60, method, n % 70, n, n % 7) for n in range(400))
        for method in ("GET", "PROPFIND")  # seldom, so not looked for in columns
    )
    files = []
    for name, content in (("odd", odd), ("mixed", odd + plain + odd), ("plain", plain)):
        files.append(tmp_path / name)
        files[-1].write_text(content)
    for some in (files[:1], files, files[::-1]):
        found = [
            analyze(
                some, executor, part_size=5_000, counting=Counting(engine=engine), keep_tally=keep
            ).to_json()
            for executor, engine, keep in (
                (SerialExecutor(), "stdlib", True),
                (any_executor, "arrow", True),
                (any_executor, "arrow", False),
            )
        ]
        assert found[1:] == found[:1] * 2


def test_nothing_is_brought_to_workers_that_are_not_known(made: Demo) -> None:
    """Of some calls it is not known where they ran: no worker is named for them."""
    wanted = analyze_here([made.plain]).to_json()
    with Remote(("a", None)) as executor:
        todo = plan([made.plain], part_size=6_000)
        assert run(todo, executor, window=16, keep_tally=False).to_json() == wanted
    assert "bring" not in executor.calls


def test_a_tally_leaves_the_workers_only_to_be_kept(made: Demo, tmp_path: Path) -> None:
    """The report is made where the tally is; one without it says so when it is to be saved."""
    todo, wanted = plan([made.plain], part_size=60_000), analyze_here([made.plain]).tally
    path = tmp_path / "kept.tally"
    with Remote() as executor:
        kept, other = [run(todo, executor, keep_tally=keep) for keep in (True, False)]
    assert kept.tally == wanted is not None
    save(kept, path)
    assert merge_saved([path]).to_json() == kept.to_json() == other.to_json()
    assert other.tally is None
    before = path.read_bytes()
    with pytest.raises(ValueError, match="keep_tally=True"):
        save(other, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_shares_of_a_compressed_file_are_one_report(made: Demo, tmp_path: Path, kind: str) -> None:
    """A compressed file that several calls read has the report of the plain one, with the line
    numbers of malformed lines."""
    path = tmp_path / "log"
    content = Path(made.plain).read_bytes()
    if kind == "gzip":
        path.write_bytes(gzip.compress(content))
    else:
        path.write_bytes(pytest.importorskip("zstandard").compress(content))
    todo = plan([path], part_size=10_000, shares=8)
    with ThreadPoolExecutor(2) as executor:
        report = run(todo, executor)
    assert len(todo.files[0][1]) == 8
    wanted = analyze_here([made.plain])
    assert replace(report, files=wanted.files, samples=()) == replace(wanted, samples=())
    assert [s.number for s in report.samples] == [s.number for s in wanted.samples]


def test_no_tally_comes_to_the_client(made: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tallies are unpacked on the workers."""
    unpacked: list[str] = []
    loads = pickle.loads

    def noted(data: bytes) -> Any:
        unpacked.append(threading.current_thread().name)
        return loads(data)

    monkeypatch.setattr("daskexec.logs.counting.pickle.loads", noted)
    with Remote() as executor:
        run(plan([made.plain], part_size=9_000), executor)
    assert unpacked
    assert threading.current_thread().name not in unpacked
    assert len(unpacked) > 50


def test_a_file_that_fails_is_in_no_tree(made: Demo, tmp_path: Path) -> None:
    """Of a file that goes while it is read nothing is counted, though parts of it were: also
    where its worker died. The others are."""
    wanted = analyze_here([made.plain]).requests
    names = [tmp_path / "shrinks.log", tmp_path / "kills.log"]
    for name in names:
        name.write_bytes(Path(made.plain).read_bytes())
    todo = plan([names[0], made.plain, names[1]], part_size=20_000)
    with names[0].open("r+b") as stream:
        stream.truncate(100_000)
    with Remote() as executor:
        executor.dead = {str(names[1])}
        report = run(todo, executor)
    assert report.requests == wanted
    reasons = {Path(failed.name).name: failed.reason for failed in report.failed}
    assert "became shorter" in reasons["shrinks.log"]
    assert "killed by SIGKILL" in reasons["kills.log"]


def test_merging_takes_any_order() -> None:
    """Merging packed tallies is merging them, also of none, and of pieces already merged."""
    assert pickle.loads(merge_piece(0, [])) == Tally()
    one = Tally(requests=1, paths=Counter({b"/": 1}))
    two = Tally(requests=2, paths=Counter({b"/": 1, b"/x": 1}))
    packed: list[Any] = [[pickle.dumps(tally)] * PIECES for tally in (one, two)]
    merged = merge_piece(1, packed)
    assert pickle.loads(merged) == pickle.loads(merge_piece(0, packed[::-1]))
    assert pickle.loads(merged).paths == {b"/": 2, b"/x": 1}
    assert pickle.loads(merge_piece(1, [merged, packed[0]])).paths == {b"/": 3, b"/x": 1}


@pytest.mark.parametrize("max_keys", [0, 20])
def test_pieces_are_the_tally(made: Demo, max_keys: int) -> None:
    """They have no key in common, and all together."""
    part, counting = cut(str(made.plain))[0], Counting(max_keys=max_keys)
    pieces = pieces_of(tally_part(part, "combined", counting))
    assert len(pieces) == PIECES
    filled = [sum(bool(getattr(piece, f.name)) for piece in pieces) for f in fields(Tally)]
    names = {f.name for f, times in zip(fields(Tally), filled, strict=True) if times > 1}
    tables = {"paths", "path_bytes", "not_found", "clients", "referrers"}
    assert names <= {"arrays", "max_keys", "lost", "visitors", *tables}
    for name in tables:
        keys = [set(piece.table(name)) for piece in pieces]
        assert sum(map(len, keys)) == len(set[bytes]().union(*keys))
        assert max_keys or all(keys)
    for name in ("lost", "sketches"):
        names_of = [key for piece in pieces for key in getattr(piece, name)]
        assert len(names_of) == len(set(names_of))
        assert bool(names_of) is bool(max_keys)
    whole = Tally()
    for piece in pieces[::-1]:
        whole = merge(whole, piece)
    assert settle(whole) == settle(tally_part(part, "combined", counting))


# -- interruption -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["serial", "threads", "remote"])
def test_what_was_counted_is_reported(tmp_path: Path, kind: str) -> None:
    """An interrupted job has a report of what was counted by then, marked as partial; malformed
    lines whose number is not known are left out of it; what had not begun is not run."""
    path = tmp_path / "log"
    line = b'1.1.1.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 9 "-" "ua"\n'
    path.write_bytes((line + b"bad\n") * 1_000)
    counted: list[Any] = []

    def tally(part: Any, form: str) -> Tally:
        counted.append(part)
        return tally_part(part, form)

    def progress(done: int, size: int) -> None:
        if done >= size // 4:
            raise KeyboardInterrupt

    make = {"serial": SerialExecutor, "threads": lambda: ThreadPoolExecutor(2), "remote": Remote}
    todo = plan([path], part_size=790)
    with make[kind]() as executor, pytest.raises(Interrupted) as caught:
        run(todo, executor, progress=progress, tally=tally, window=8)
    report = caught.value.report
    assert report is not None
    assert report.partial
    assert json.loads(report.to_json())["partial"] is True
    assert 0 < report.requests < 1_000
    assert report.lines == report.requests + report.malformed
    assert all(sample.number % 2 == 0 for sample in report.samples)
    assert len(counted) < len(todo.files[0][1])


def test_lines_after_a_gap_have_no_number(tmp_path: Path) -> None:
    """Where the first part was not counted when the job was interrupted, no malformed line is
    shown: its number is not known."""
    path = tmp_path / "log"
    line = b'1.1.1.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 9 "-" "ua"\n'
    path.write_bytes((line + b"bad\n") * 1_000)
    release = threading.Event()

    def tally(part: Any, form: str) -> Tally:
        if part.ordinal == 0:
            release.wait(30)
        return tally_part(part, form)

    def progress(done: int, size: int) -> None:
        if done:
            raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(Interrupted) as caught:
            run(plan([path], part_size=7_900), executor, progress=progress, tally=tally)
        release.set()
    report = caught.value.report
    assert report is not None
    assert report.malformed > 0
    assert report.samples == ()


def test_a_broken_executor_is_raised(made: Demo) -> None:
    """What breaks the whole executor ends the job."""

    def tally(part: Any, form: str) -> Tally:
        raise BrokenExecutor("gone")

    with SerialExecutor() as executor, pytest.raises(BrokenExecutor, match="gone"):
        run(plan([made.plain]), executor, tally=tally)


# -- plans ------------------------------------------------------------------------------------


def test_a_plan_of_forty_gigabytes(made: Demo, tmp_path: Path) -> None:
    """--dry-run says files, parts, merge tree and what would cross the wire, of 40 GB that are
    not read."""
    head = Path(made.plain).read_bytes()
    for number in range(40):
        path = tmp_path / f"{number}.log"
        path.write_bytes(head)
        with path.open("r+b") as stream:
            stream.truncate(1_000_000_000)  # sparse: takes no room
    words = ["logs", "-e", "processes", "--dry-run", str(tmp_path)]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.stderr
    assert "40 files, 40.0 GB as they lie on disk: 600 parts, a call each" in result.stdout
    assert "and 20 more" in result.stdout
    assert "tallies merged here, as they come: 600 -> 1" in result.stdout
    said = outline(plan([tmp_path]), remote=True)
    assert "16 at a time: 600 -> 38 -> 3 -> 1" in said
    assert "to the workers: " in said
    assert "between workers, at most: " in said
    assert "one tally" in said


def test_a_plan_without_lines(tmp_path: Path) -> None:
    """A plan of nothing, and one of an empty file, can be told."""
    (tmp_path / "empty").touch()
    assert outline(plan([]), remote=True).startswith("0 files, 0 B")
    assert "0 parts" in outline(plan([tmp_path / "empty"]), remote=False)
    result = CliRunner().invoke(cli, ["logs", "--dry-run", str(tmp_path / "gone")])
    assert result.exit_code == 1
    assert "No such file" in result.stderr


@pytest.mark.parametrize(
    ("number", "levels"), [(0, [0]), (1, [1]), (16, [16, 1]), (17, [17, 2, 1])]
)
def test_levels_of_the_tree(number: int, levels: list[int]) -> None:
    """The levels go down to one tally."""
    assert merge_levels(number) == levels


def test_the_graph_says_what_it_is() -> None:
    """The job is a graph: its stages are properties, whatever a run is given of them."""
    assert {"paths", "tallies", "totals", "tables", "host_names", "report"} <= set(JOB)
    totals = PartCounter(SerialExecutor(), tally_part).totals()
    run = JOB.on(
        SerialExecutor(), totals=totals, tallies=[], plan=plan([]), top=3, keep_tally=False
    )
    assert run["tables"].requests == 0
    assert '"tallies"' in JOB.to_dot()


# -- progress ---------------------------------------------------------------------------------


class Stream(io.StringIO):
    """A stream that is, or is not, a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize("wanted", [None, False, True])
def test_progress_elsewhere_than_on_a_terminal(
    wanted: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no terminal the progress is shown when it is asked for, a line now and
    then; elsewhere not at all."""
    clock = iter(range(0, 1_000, 3))
    monkeypatch.setattr("daskexec.logs.progress.time.monotonic", lambda: float(next(clock)))
    stream = Stream(terminal=False)
    with showing(stream, wanted) as tell:
        assert (tell is None) == (not wanted)
        if tell is not None:
            for done in range(10):
                tell(done * 10**9, 10**10)
    lines = stream.getvalue().splitlines()
    assert len(lines) == (5 if wanted else 0)
    assert not wanted or lines[0].startswith("reading: 1.00 GB of 10.0 GB (10 %), ")


@pytest.mark.parametrize(("wanted", "shown"), [(None, True), (True, True), (False, False)])
def test_progress_on_a_terminal(wanted: bool | None, shown: bool) -> None:
    """On a terminal there is a bar with bytes, rate and time left, unless it is not wanted; it
    is gone at the end."""
    stream = Stream(terminal=True)
    with showing(stream, wanted) as tell:
        if tell is not None:
            tell(0, 0)  # not known: it pulses
            tell(25_000_000, 100_000_000)
    assert ("25.0/100.0 MB" in stream.getvalue()) == shown


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (0, 0, 0.0, "reading: 0 B, 0 B/s"),
        (5 * 10**9, 0, 10.0, "reading: 5.00 GB, 500 MB/s"),
        (10**9, 10**13, 1.0, "reading: 1.00 GB of 10.0 TB (0 %), 1.00 GB/s, 2:46:39 left"),
    ],
)
def test_progress_in_a_line(done: int, total: int, seconds: float, line: str) -> None:
    """A line tells bytes, share, rate and time left, as far as they are known."""
    assert told(done, total, seconds) == line


# -- host names -------------------------------------------------------------------------------


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A name server that knows 10.0.0.1 and does not answer for 10.0.0.2 until it is let."""
    answer = threading.Event()

    def ask(address: str) -> tuple[str, list[str], list[str]]:
        if address == "10.0.0.2":
            answer.wait(60)
        if address != "10.0.0.1":
            raise OSError("not known")
        return "one.example", [], [address]

    monkeypatch.setattr(hosts.socket, "gethostbyaddr", ask)
    yield answer
    answer.set()
    for thread in threading.enumerate():
        if thread.name == "daskexec-host-name":
            thread.join(30)


@pytest.mark.timeout(25)
def test_host_names_of_top_clients(names: threading.Event, tmp_path: Path) -> None:
    """Names are looked up from here, whatever the executor; who has none, or whose name does not
    come in time, stays an address. A client that is no address is not asked for."""
    line = b'%b - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 9 "-" "ua"\n'
    path = tmp_path / "log"
    path.write_bytes(b"".join(line % c for c in [b"10.0.0.1", b"10.0.0.2", b"10.0.0.3", b"host"]))
    with Remote() as executor:
        report = analyze([path], executor, resolve=0.3)
        assert "host_name" not in executor.calls
    assert report.host_names == {b"10.0.0.1": "one.example"}
    assert json.loads(report.to_json())["host_names"] == {"10.0.0.1": "one.example"}
    names.set()
    result = CliRunner().invoke(cli, ["logs", "-e", "serial", "--resolve", str(path)])
    assert "10.0.0.1  one.example" in result.stdout
    assert "one.example" not in analyze_here([path]).to_json()
