"""What counts as large, as the same, and as needed: without threads and without a cluster."""

from __future__ import annotations

import functools
import pickle
import threading
from array import array
from typing import Any

import pytest

from daskexec import _large
from daskexec._frames import LARGE, Frames, load_referring
from daskexec._large import Large, LargeObjects
from daskexec._pickling import FailedArgument, Unfinished, load
from daskexec.futures import DaskFuture

SIZE = 2 * LARGE


class Newest:
    """The number of the newest call, as the ledger tells it."""

    number = 0

    def __call__(self) -> int:
        return self.number


@pytest.fixture
def newest() -> Newest:
    return Newest()


@pytest.fixture
def objects(newest: Newest) -> LargeObjects:
    return LargeObjects("x", newest)


def sent(large: Large) -> Frames:
    """As it arrives on a worker."""
    buffers: list[Any] = []
    blob = pickle.dumps(large.frames, 5, buffer_callback=buffers.append)
    frames: Frames = pickle.loads(blob, buffers=[bytearray(b.raw()) for b in buffers])
    return frames


def opened(blob: bytes, large: tuple[Large, ...]) -> Any:
    return load_referring(blob, {one.place.key: sent(one) for one in large})


def keys(packed: tuple[bytes, tuple[Large, ...]]) -> list[str]:
    return [one.place.key for one in packed[1]]


@pytest.mark.parametrize(
    "args", [(), (1, "a", b"b"), ([1, 2], {"k": "v"}), (bytearray(100),), (b"x" * (LARGE // 2),)]
)
def test_small_arguments(objects: LargeObjects, args: tuple[Any, ...]) -> None:
    """They are in the call's pickle."""
    blob, large = objects.dump((args, {"key": args}), 1)
    assert large == ()
    assert load(blob) == (args, {"key": args})
    assert objects.pause is None


@pytest.mark.parametrize(
    "value",
    [
        b"b" * SIZE,
        "ä\ud800" * SIZE,
        bytearray(b"a" * SIZE),
        array("d", bytes(SIZE)),
        [0.5] * SIZE,
        {"a": bytearray(SIZE), "b": 1},
        (b"1" * SIZE, b"2" * SIZE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_large_arguments(objects: LargeObjects, value: Any) -> None:
    """They are beside it, and arrive as what they are."""
    for call in (
        ((value, 1), {}),
        ((1,), {"key": value}),
        (functools.partial(max, value), (), {}),
    ):
        blob, large = objects.dump(call, 1)
        assert len(blob) < 1000
        assert large
        got = opened(blob, large)
        if len(call) == 3:
            assert got[0].args == (value,)
        else:
            assert got == call


def test_one_look_is_good_for_earlier_calls(objects: LargeObjects, newest: Newest) -> None:
    """Calls that were submitted before the last look are given what was seen then."""
    data = bytearray(SIZE)
    newest.number = 10
    objects.begin()
    first = objects.dump(((data,), {}), 1)
    data[0] = 1
    objects.begin()
    assert keys(objects.dump(((data,), {}), 10)) == keys(first)
    assert keys(objects.dump(((data,), {}), 11)) != keys(first)
    objects.begin()
    data[0] = 0
    assert keys(objects.dump(((data,), {}), None)) == keys(first)


def test_a_round_is_one_look(objects: LargeObjects) -> None:
    """When it is not known when calls were submitted, each round looks anew, once."""
    data = bytearray(SIZE)
    objects.begin()
    first = objects.dump(((data,), {}), None)
    data[0] = 1
    assert keys(objects.dump(((data,), {}), None)) == keys(first)
    objects.begin()
    assert keys(objects.dump(((data,), {}), None)) != keys(first)


def test_equal_objects_share(objects: LargeObjects) -> None:
    """Equal ones have the same key; others of their size have not."""
    one, two = bytearray(SIZE), bytearray(SIZE)
    packed = objects.dump(((one, two, bytearray(b"x" * SIZE)), {}), 1)
    assert len(keys(packed)) == 2
    one_again, two_again, _ = opened(*packed)[0]
    assert one_again is not two_again


def test_parts_that_share_an_object(objects: LargeObjects) -> None:
    """They are pickled together: within a call the same object stays one object."""
    inner = {"some": "thing"}
    value = [inner, *range(SIZE)]
    blob, large = objects.dump(((inner, value), {}), 1)
    assert large == ()
    first, second = load(blob)[0]
    assert first is second[0]


def test_futures_within(objects: LargeObjects) -> None:
    """A future beside, or inside of, a large object stands for its value."""
    lock: Any = threading.Lock()  # as a dispatcher has
    future: DaskFuture[int] = DaskFuture("f", 0, lock)
    for args in ((b"x" * SIZE, future), ([future, *range(SIZE)],)):
        with pytest.raises(Unfinished):
            objects.dump((args, {}), 1)
    future.set_exception(ValueError())
    with pytest.raises(FailedArgument):
        objects.dump(((b"x" * SIZE, future), {}), 1)


def test_letting_go(objects: LargeObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy goes when no call has needed it for a while, all else when the object goes."""
    now = 1000.0
    monkeypatch.setattr(_large, "monotonic", lambda: now)
    for data in ([bytearray(SIZE)], [b"b" * SIZE], [array("d", bytes(SIZE))]):
        packed = [objects.dump((tuple(data), {}), n) for n in range(2)]
        (key, *_) = keys(packed[0])
        now += 10
        objects.tidy()
        assert len(objects._copies) == 1  # the calls are pending
        del packed
        now += 10
        objects.tidy()
        assert not objects._copies
        assert keys(objects.dump((tuple(data), {}), 9)) == [key]  # the workers have it still
        data.clear()
        now += 10
        objects.tidy()
        now += 10
        objects.tidy()
        assert objects.pause is None


def test_idle_objects_are_bounded(objects: LargeObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of objects that nobody has needed for a while the workers keep so many bytes."""
    now = 1000.0
    monkeypatch.setattr(_large, "monotonic", lambda: now)
    monkeypatch.setattr(LargeObjects, "IDLE_BYTES", 3 * SIZE)
    data = [bytearray(b"%d" % n * SIZE) for n in range(5)]
    for one in data:
        for number in range(2):
            objects.dump(((one,), {}), number)
    once = bytearray(b"x" * SIZE)
    objects.dump(((once,), {}), 1)
    now += 10
    objects.tidy()
    kept = [known.place is not None for known in objects._known.values()]
    assert kept == [False, False, False, True, True, False] or sum(kept) == 3
