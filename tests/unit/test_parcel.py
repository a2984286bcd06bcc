"""What is written down of calls that were left, and read again."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from daskexec._failures import Failure
from daskexec._frames import Frames, dump_result
from daskexec._parcel import KeptCall, Parcel, ResultsReader, ResultsWriter, loaded
from daskexec._pickling import dump
from daskexec.options import CallOptions


def test_results_come_back(tmp_path: Path) -> None:
    """Values, errors and cancelled calls are read as they were written, each once."""
    writer, reader = ResultsWriter(tmp_path / "results"), ResultsReader(tmp_path / "results")
    writer.add(3, dump({"a": 1}))
    writer.add(1, memoryview(dump("view")))
    writer.add(2, Failure.of(ZeroDivisionError("x")))
    first = dict(reader.more())
    assert (loaded(first[3]), loaded(first[1])) == (({"a": 1}, None), ("view", None))
    error = loaded(first[2])[1]
    assert isinstance(error, ZeroDivisionError)
    assert list(reader.more()) == []
    writer.add(4, None)
    assert list(reader.more()) == [(4, None)]
    writer.close()


def test_a_result_that_is_half_written(tmp_path: Path) -> None:
    """What is not yet there in full is left for the next look, wherever it is cut."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    writer = ResultsWriter(whole)
    writer.add(0, dump("zero"))
    writer.add(1, dump("one"))
    writer.close()
    data = whole.read_bytes()
    for cut in range(len(data)):
        part.write_bytes(data[:cut])
        reader = ResultsReader(part)
        before = [index for index, _ in reader.more()]
        part.write_bytes(data)
        assert before + [index for index, _ in reader.more()] == [0, 1]


def test_large_results_stay_writable(tmp_path: Path) -> None:
    """An array is as writable after it was written down as it was, though its bytes were not."""
    np = pytest.importorskip("numpy")
    made = dump_result(np.arange(1 << 18))
    assert isinstance(made, Frames)
    arrived = Frames(made.key, made.kind, made.head, [bytes(made.buffers[0])], made.writable)
    writer = ResultsWriter(tmp_path / "results")
    writer.add(0, arrived)
    writer.close()
    ((_, body),) = ResultsReader(tmp_path / "results").more()
    value, error = loaded(body)
    assert error is None
    value[0] = 7
    assert value[1] == 1


def test_a_parcel_is_never_loaded(tmp_path: Path) -> None:
    """Writing and reading a parcel runs nothing of what is in its calls."""

    class Bomb:
        def __reduce__(self) -> object:
            return (pytest.fail, ("it was loaded",))

    blob = pickle.dumps(Bomb())
    parcel = Parcel("id", "topic", "auto", 6.0, None, None)
    parcel.calls.append(KeptCall(0, "f", 1, blob, (blob, True), CallOptions(priority=3)))
    parcel.dump(tmp_path / "parcel")
    (call,) = Parcel.load(tmp_path / "parcel").calls
    assert (call.blob, call.options) == (blob, CallOptions(priority=3))
    with pytest.raises(FileExistsError):  # of another hand-over, perhaps
        parcel.dump(tmp_path / "parcel")
