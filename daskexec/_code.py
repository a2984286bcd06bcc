"""Code that is brought to workers which do not have it: ``DaskExecutor.upload``. Floor 4.

`pack` makes a bundle of a module, a package or an archive, on the client; `CodePlugin` unpacks it
into the worker's own folder and puts that on ``sys.path``, on every worker there is and on those
that come later. The newest bundle comes first on the path, whatever the order in which a worker
was given them. Modules of these names are taken out of ``sys.modules``, so that the next import
finds the new ones; what calls hold of the old ones stays as it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import io
import os
import platform
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from distributed import WorkerPlugin

from daskexec import _run

__all__ = ["Bundle", "CodePlugin", "pack"]

#: Bytes of code from which on it is better installed where the workers run: Dask's scheduler
#: keeps what was uploaded, for workers that come later.
MOST = 256 << 20

_ARCHIVES = {".zip", ".egg", ".whl"}
_COMPILED = {".so", ".pyd"}
#: What the workers themselves are made of.
_RESERVED = frozenset(sys.stdlib_module_names) | {
    "__main__", "cloudpickle", "dask", "daskexec", "distributed", "msgpack", "psutil", "tornado",
}  # fmt: skip


# --- on the client ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bundle:
    """Python code as it travels.

    Attributes
    ----------
    name : str
        Of what was uploaded: a bundle replaces an older one of the same name.
    modules : tuple of str
        The names that can be imported.
    blob : bytes
        A zip of the files.
    serial : int
        Larger for a newer one.
    origin : str
        Path that it was made from, for people.
    """

    name: str
    modules: tuple[str, ...]
    blob: bytes = field(repr=False)
    serial: int
    origin: str


def pack(path: str | os.PathLike[str]) -> Bundle:
    """Make a bundle of a module's file, a package's folder, or a zip, egg or wheel.

    Raises
    ------
    FileNotFoundError
        There is nothing at the path.
    ValueError
        There is no Python code in it, or none that could be imported.
    """
    origin = Path(path).expanduser().absolute()
    if not origin.exists():
        raise FileNotFoundError(f"nothing to upload at {origin}: there is no such file or folder")
    if origin.is_dir():
        modules, blob = _pack_folder(origin)
    elif origin.suffix == ".py":
        _check_name(origin.stem, origin)
        modules, blob = [origin.stem], _zipped([(origin.name, origin)])
    elif origin.suffix in _ARCHIVES:
        modules, blob = _check_archive(origin)
    else:
        raise ValueError(
            f"cannot upload {origin}: it is no Python code. Give a .py file, the folder of a "
            f"package, or a .zip, .egg or .whl"
        )
    if len(blob) > MOST:
        raise ValueError(
            f"{origin} is {len(blob) >> 20} MiB, too much to upload (at most {MOST >> 20} MiB): "
            f"install it where the workers run"
        )
    return Bundle(origin.stem, tuple(sorted(modules)), blob, time.time_ns(), str(origin))


def _pack_folder(folder: Path) -> tuple[list[str], bytes]:
    if not (folder / "__init__.py").is_file():
        inside = sorted(path.parent.name for path in folder.glob("*/__init__.py"))
        if inside:
            advice = f"it holds packages: upload them one by one ({', '.join(inside[:5])})"
        elif any(folder.glob("*.py")):
            advice = "add an empty __init__.py, or upload its files one by one"
        else:
            advice = "there is no Python code in it"
        raise ValueError(f"cannot upload {folder}: it has no __init__.py, so {advice}")
    _check_name(folder.name, folder)
    return [folder.name], _zipped(_files(folder))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a package, but for caches and what is hidden."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f != "__pycache__" and not f.startswith("."))
        for name in sorted(files):
            if not name.endswith(".pyc") and not name.startswith("."):
                path = Path(where, name)
                yield str(PurePosixPath(path.relative_to(folder.parent))), path


def _zipped(files: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files:
            # Not ZipFile.write: it refuses files that are older than the format.
            archive.writestr(name, path.read_bytes())
    return buffer.getvalue()


def _check_archive(path: Path) -> tuple[list[str], bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        raise ValueError(f"cannot upload {path}: it is not a zip archive, or damaged") from None
    modules = set()
    for name in names:
        parts = PurePosixPath(name).parts
        suffix = PurePosixPath(name).suffix
        if len(parts) == 1 and (suffix == ".py" or suffix in _COMPILED):
            modules.add(parts[0].split(".")[0])
        elif len(parts) == 2 and parts[1] == "__init__.py":
            modules.add(parts[0])
    found = [module for module in modules if module.isidentifier() and module != "setup"]
    if not found:
        raise ValueError(
            f"cannot upload {path}: there is neither a module nor a package at the top of the "
            f"archive. In a zip of a project, make one of the package's folder"
        )
    for module in found:
        _check_name(module, path)
    return found, path.read_bytes()


def _check_name(name: str, path: Path) -> None:
    if not name.isidentifier():
        raise ValueError(
            f"cannot upload {path}: `import {name}` is no Python, so nothing could import it. "
            f"Give it a name of letters, digits and underscores"
        )
    if name in _RESERVED:
        raise ValueError(
            f"cannot upload {path}: the workers need another module called {name!r}, which it "
            f"would hide. Give it another name"
        )


# --- on the workers -----------------------------------------------------------------------------

_serials: dict[str, int] = {}  # of the folders on sys.path


class CodePlugin(WorkerPlugin):
    """Brings a bundle to every worker, those that join later included."""

    def __init__(self, executor: str, bundle: Bundle) -> None:
        self.bundle = bundle
        self.name = f"daskexec-code-{bundle.name}-{executor}"
        self.client = (platform.node(), os.getpid())

    async def setup(self, worker: Any) -> None:
        self._folder = folder = self._folder_on(worker)
        await asyncio.to_thread(_unpack, self.bundle.blob, folder)
        # Where worker and client are one process, what the user has imported stays.
        mine = self.client == (platform.node(), os.getpid())
        _serials[str(folder)] = -self.bundle.serial if mine else self.bundle.serial
        _put_on_path()
        if not mine:
            _forget(self.bundle.modules)
        importlib.invalidate_caches()
        _run.forget_functions()

    def teardown(self, worker: Any) -> None:
        folder = self._folder_on(worker)
        if _serials.pop(str(folder), None) is not None:
            _put_on_path()
            sys.path[:] = [path for path in sys.path if path != str(folder)]
            if self.client != (platform.node(), os.getpid()):
                _forget(self.bundle.modules, folder)
            importlib.invalidate_caches()
            _run.forget_functions()
        shutil.rmtree(folder, ignore_errors=True)

    def _folder_on(self, worker: Any) -> Path:
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:12]
        return Path(worker.local_directory, "daskexec-code", f"{digest}-{self.bundle.serial}")


def _unpack(blob: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        archive.extractall(folder)  # which goes nowhere else, whatever the names in it


def _put_on_path() -> None:
    """Have the newest folder come first on the path; those of the client's process last."""
    first = sorted((path for path, n in _serials.items() if n > 0), key=_serials.__getitem__)
    last = sorted((path for path, n in _serials.items() if n <= 0), key=_serials.__getitem__)
    others = [path for path in sys.path if path not in _serials]
    sys.path[:] = [*reversed(first), *others, *last]


def _forget(modules: tuple[str, ...], folder: Path | None = None) -> None:
    """Have modules imported anew; only those from a folder, if one is given."""
    for name in list(sys.modules):
        if name.split(".")[0] in modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if folder is None or file.startswith(f"{folder}{os.sep}"):
                del sys.modules[name]
