"""What can be uploaded, and what is said of what cannot."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import pytest

from daskexec._code import pack


def a_package(folder: Path, name: str = "shapes") -> Path:
    package = folder / name
    (package / "deep").mkdir(parents=True)
    (package / "__pycache__").mkdir()
    (package / ".hidden").mkdir()
    for file in ("__init__.py", "deep/__init__.py", "deep/data.txt", "__pycache__/a.pyc"):
        (package / file).write_text("")
    (package / ".hidden" / "secret").write_text("")
    return package


def names_in(blob: bytes) -> set[str]:
    return set(zipfile.ZipFile(io.BytesIO(blob)).namelist())


def test_a_module(tmp_path: Path) -> None:
    """A file is one module."""
    path = tmp_path / "helpers.py"
    path.write_text("x = 1")
    bundle = pack(path)
    assert bundle.modules == ("helpers",)
    assert names_in(bundle.blob) == {"helpers.py"}


def test_a_package(tmp_path: Path) -> None:
    """A folder goes with its data, and without caches and hidden files."""
    bundle = pack(str(a_package(tmp_path)))
    assert bundle.modules == ("shapes",)
    assert names_in(bundle.blob) == {
        "shapes/__init__.py",
        "shapes/deep/__init__.py",
        "shapes/deep/data.txt",
    }


@pytest.mark.parametrize("name", ["made.zip", "made-1.0-py3.egg", "made-1.0-py3-none-any.whl"])
def test_an_archive(tmp_path: Path, name: str) -> None:
    """What is at the top of an archive can be imported."""
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as archive:
        for inside in ("one.py", "two/__init__.py", "two/x.py", "made-1.0.dist-info/METADATA"):
            archive.writestr(inside, "")
    assert pack(path).modules == ("one", "two")


def test_a_newer_one_has_a_larger_serial(tmp_path: Path) -> None:
    """By it workers tell which of two versions is the newer."""
    path = tmp_path / "helpers.py"
    path.write_text("")
    assert pack(path).serial < pack(path).serial


def test_nothing_there(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "gone.py"))):
        pack(tmp_path / "gone.py")


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("notes.txt", "no Python code"),
        ("my-script.py", "`import my-script` is no Python"),
        ("random.py", "another module called 'random'"),
        ("daskexec.py", "another module called 'daskexec'"),
        ("broken.zip", "not a zip archive"),
    ],
)
def test_files_that_cannot_be_imported(tmp_path: Path, file: str, what: str) -> None:
    """It is said why, and what to do."""
    (tmp_path / file).write_text("x")
    with pytest.raises(ValueError, match=re.escape(what)):
        pack(tmp_path / file)


def test_folders_that_are_no_packages(tmp_path: Path) -> None:
    """A folder of packages, of loose files, and of none of these."""
    a_package(tmp_path / "src")
    with pytest.raises(ValueError, match=r"upload them one by one \(shapes\)"):
        pack(tmp_path / "src")
    loose = tmp_path / "loose"
    loose.mkdir()
    with pytest.raises(ValueError, match="there is no Python code in it"):
        pack(loose)
    (loose / "a.py").write_text("")
    with pytest.raises(ValueError, match=r"add an empty __init__\.py"):
        pack(loose)


def test_an_archive_of_a_project(tmp_path: Path) -> None:
    """With everything one folder deeper nothing could be imported."""
    path = tmp_path / "project.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("project-main/setup.py", "")
        archive.writestr("project-main/thing/__init__.py", "")
    with pytest.raises(ValueError, match="neither a module nor a package at the top"):
        pack(path)
