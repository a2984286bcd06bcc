"""Ranges own the lines that start inside them, however small they are."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskexec.logs.split import READ_ERRORS, Part, cut, first_lines, read_blocks

contents = st.lists(
    st.sampled_from([b"\n", b"a", b"bb\n", b"\r\n", b"long line without end ", b"\x00\x0c"]),
    max_size=30,
).map(b"".join)


def written(folder: str, content: bytes) -> str:
    path = os.path.join(folder, "file")
    Path(path).write_bytes(content)
    return path


@settings(deadline=None)
@given(content=contents, size=st.integers(1, 40), block=st.integers(1, 40))
def test_each_line_has_one_owner(content: bytes, size: int, block: int) -> None:
    """For every range and block size: the parts together are the file, in order, and each
    line is in the part in whose range it starts."""
    with tempfile.TemporaryDirectory() as folder:
        parts = cut(written(folder, content), size)
        read = [b"".join(read_blocks(part, block)) for part in parts]
    assert b"".join(read) == content
    at = 0
    for part, data in zip(parts, read, strict=True):
        if data:
            assert part.start <= at < part.stop
            last = at + data[:-1].rfind(b"\n") + 1
            assert last < part.stop
        at += len(data)


@settings(deadline=None)
@given(content=contents, block=st.integers(1, 40))
def test_blocks_are_whole_lines(content: bytes, block: int) -> None:
    """Every block ends with a newline, but for a last one where the file does not."""
    with tempfile.TemporaryDirectory() as folder:
        blocks = [b for p in cut(written(folder, content)) for b in read_blocks(p, block)]
    assert all(b.endswith(b"\n") for b in blocks[:-1])
    assert b"".join(blocks) == content


@pytest.mark.parametrize("block", [1, 7, 1_000])
def test_a_file_that_becomes_shorter_is_an_error(tmp_path: Path, block: int) -> None:
    """Wherever the file ends by now, also where a block was to begin."""
    path = tmp_path / "file"
    path.write_bytes(b"a line\n" * 10_000)
    (part,) = cut(str(path))
    blocks = read_blocks(part, block)
    length = len(next(blocks))
    os.truncate(path, length)
    with pytest.raises(EOFError, match="became shorter"):
        next(blocks)


@pytest.mark.parametrize(
    ("compress", "kind"),
    [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")],
)
def test_a_compressed_file_is_one_part(tmp_path: Path, compress, kind: str) -> None:
    """Compression is told from the content, not from the name; many members are read."""
    path = tmp_path / "no-suffix"
    path.write_bytes(compress(b"one\ntwo") + compress(b"\nthree"))
    (part,) = cut(str(path), 3)
    assert part.compression == kind
    assert first_lines(part, 2) == [b"one", b"two"]
    assert b"".join(read_blocks(part)) == b"one\ntwo\nthree"


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_truncated_file_is_an_error(tmp_path: Path, compress) -> None:
    """Compressed data that end too early are never taken for a shorter file."""
    path = tmp_path / "file"
    path.write_bytes(compress(os.urandom(200_000))[:-1000])
    (part,) = cut(str(path))
    with pytest.raises(READ_ERRORS):
        list(read_blocks(part))


COMPRESS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pytest.importorskip("zstandard").compress(data),
}


@settings(deadline=None)
@given(
    content=contents,
    edges=st.sets(st.integers(1, 300), max_size=6),
    block=st.integers(1, 40),
    kind=st.sampled_from(sorted(COMPRESS)),
)
def test_shares_of_compressed_files_own_their_lines(
    content: bytes, edges: set[int], block: int, kind: str
) -> None:
    """Wherever the content of a compressed file is cut, also beyond its end, the shares
    together are the content, and each line is in the share in which it starts."""
    with tempfile.TemporaryDirectory() as folder:
        path = written(folder, COMPRESS[kind](content))
        ends = sorted(edges)
        parts = [
            Part(path, i, 0, 1, kind, begin, end)
            for i, (begin, end) in enumerate(zip([0, *ends], [*ends, None], strict=True))
        ]
        read = [b"".join(read_blocks(part, block)) for part in parts]
    assert b"".join(read) == content
    at = 0
    for part, data in zip(parts, read, strict=True):
        if data:
            last = at + data[:-1].rfind(b"\n") + 1
            assert part.begin <= at
            assert part.end is None or last < part.end
        at += len(data)


@pytest.mark.parametrize("kind", sorted(COMPRESS))
def test_a_large_compressed_file_has_shares(tmp_path: Path, kind: str) -> None:
    """As many calls as are wanted read a compressed file, each about as much; but not of one
    that takes longer to decompress than to parse."""
    path = tmp_path / "file"
    content = b"".join(b"%d %d\n" % (n, n * n) for n in range(40_000))
    path.write_bytes(COMPRESS[kind](content))
    parts = cut(str(path), 10_000, shares=4)
    read = [b"".join(read_blocks(part)) for part in parts]
    assert b"".join(read) == content
    assert sum(part.size for part in parts) == path.stat().st_size
    assert len(parts) == (1 if kind == "bzip2" else 4)
    assert all(abs(len(data) - len(content) / len(parts)) < len(content) / 8 for data in read)
    assert len(cut(str(path), len(content), shares=4)) == 1


def test_zstd_frames_one_after_the_other(tmp_path: Path) -> None:
    """Frames that follow each other are one content; one that is cut off is an error."""
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "file"
    frames = [zstandard.compress(text) for text in (b"one\n", b"", b"two\n" * 99_999)]
    path.write_bytes(b"".join(frames))
    (part,) = cut(str(path))
    assert b"".join(read_blocks(part)) == b"one\n" + b"two\n" * 99_999
    path.write_bytes(b"".join(frames)[:-5])
    with pytest.raises(EOFError, match="end-of-stream"):
        list(read_blocks(part))


def test_zstd_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where zstd cannot be read, the error has the command that helps."""
    path = tmp_path / "file"
    path.write_bytes(b"\x28\xb5\x2f\xfd....")
    monkeypatch.setattr(sys, "version_info", (3, 13))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (part,) = cut(str(path))
    with pytest.raises(OSError, match="pip install zstandard"):
        list(read_blocks(part))


@pytest.mark.parametrize("reader", ["isal", "gzip"])
def test_damaged_gzip_is_an_error_of_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    """What the library that decompresses says of damaged data arrives as an error of reading."""
    if reader == "isal":
        pytest.importorskip("isal")
    else:
        monkeypatch.setitem(sys.modules, "isal.igzip", None)
    path = tmp_path / "file"
    data = gzip.compress(os.urandom(50_000))
    path.write_bytes(data[:1_000] + bytes(5_000) + data[6_000:])
    (part,) = cut(str(path))
    with pytest.raises(READ_ERRORS):
        list(read_blocks(part))


def test_a_line_without_an_end_is_given_up(tmp_path: Path) -> None:
    """Memory does not depend on how long a line is: one beyond all measure is an error, in
    the part in which it starts and in those that look for its end."""
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, 200 << 20)
    for part in (Part(str(path), 0, 0, 100 << 20), Part(str(path), 1, 100 << 20, 200 << 20)):
        with pytest.raises(OSError, match="a line is longer than 64 MiB"):
            list(read_blocks(part))


def test_a_file_that_shrinks_is_an_error(tmp_path: Path) -> None:
    """A plain file that became shorter than its plan is not silently counted in part."""
    path = tmp_path / "file"
    path.write_bytes(b"line\n" * 100)
    part = Part(str(path), 0, 0, 500)
    blocks = read_blocks(part, 10)
    next(blocks)
    os.truncate(path, 250)
    with pytest.raises(EOFError, match="shorter"):
        list(blocks)


def test_an_empty_file_has_no_parts(tmp_path: Path) -> None:
    """There is nothing to call for in an empty file."""
    (tmp_path / "file").touch()
    assert cut(str(tmp_path / "file")) == []


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder, a device and a pipe are refused with a reason, and nobody waits for a writer."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        cut(str(tmp_path / "pipe"))
    with pytest.raises(OSError, match="directory"):
        cut(str(tmp_path))
    with pytest.raises(OSError, match="not a regular file"):
        cut(os.devnull)


def test_first_lines_of_a_file_without_newline(tmp_path: Path) -> None:
    """A last line without newline is a first line too; a final newline starts none."""
    path = tmp_path / "file"
    for content, lines in [(b"a\r\nb", [b"a", b"b"]), (b"a\nb\n", [b"a", b"b"]), (b"\n", [b""])]:
        path.write_bytes(content)
        assert first_lines(cut(str(path))[0], 5) == lines
