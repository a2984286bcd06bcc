"""Code brought to workers that do not have it."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daskexec_testing.gates import eventually
from daskexec_testing.processes import Cluster, running_cluster

pytestmark = pytest.mark.timeout(120)

LIMIT = 30


def attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def imports(module: str) -> Any:
    return importlib.import_module(module).__name__


def where_from(name: str) -> Any:
    from distributed import get_worker

    return get_worker().name, attribute(name, "VALUE")


@pytest.fixture(params=["own", "given"])
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    from daskexec import DaskExecutor

    if request.param == "own":
        with DaskExecutor(2) as made:
            yield made
    else:
        address = request.getfixturevalue("cluster").address
        with DaskExecutor(cluster=address) as made:
            yield made


def test_module_of_which_a_newer_version_wins(executor: Any, tmp_path: Path) -> None:
    """Calls submitted after an upload see it, also where an older version was imported."""
    path = tmp_path / "uploaded_module.py"
    for version in range(3):
        path.write_text(f"VALUE = {version}\ndef get(): return VALUE\n")
        assert executor.upload(path) == ["uploaded_module"]
        values = executor.map(attribute, ["uploaded_module"] * 20, ["VALUE"] * 20)
        assert set(values) == {version}


def test_functions_of_an_uploaded_module(
    executor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that travels by its name is that of the newest version, too."""
    path = tmp_path / "uploaded_function.py"
    path.write_text("def get(): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import uploaded_function  # type: ignore[import-not-found]

    executor.upload(path)
    assert {executor.submit(uploaded_function.get).result(LIMIT) for _ in range(10)} == {1}
    path.write_text("def get(): return 2\n")
    executor.upload(path)
    assert {executor.submit(uploaded_function.get).result(LIMIT) for _ in range(10)} == {2}


def test_package_and_archive(executor: Any, tmp_path: Path) -> None:
    """Folders and archives can be imported, with what is deeper in them."""
    package = tmp_path / "uploaded_package"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("from uploaded_package.deep import VALUE")
    (package / "deep" / "__init__.py").write_text(
        "from pathlib import Path\nVALUE = (Path(__file__).parent / 'data').read_text()"
    )
    (package / "deep" / "data").write_text("of a file")
    executor.upload(package)
    assert executor.submit(attribute, "uploaded_package", "VALUE").result(LIMIT) == "of a file"
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        archive.writestr("uploaded_zipped.py", "VALUE = 'zipped'")
        archive.writestr("uploaded_package/__init__.py", "VALUE = 'newer'")
    assert executor.upload(tmp_path / "made.zip") == ["uploaded_package", "uploaded_zipped"]
    assert executor.submit(attribute, "uploaded_zipped", "VALUE").result(LIMIT) == "zipped"
    assert executor.submit(attribute, "uploaded_package", "VALUE").result(LIMIT) == "newer"


def test_workers_that_come_later_have_it(tmp_path: Path) -> None:
    """A worker that joins has the newest version from its first call on."""
    from daskexec import DaskExecutor

    path = tmp_path / "uploaded_later.py"
    with running_cluster(tmp_path, 1) as cluster, DaskExecutor(cluster=cluster.address) as ex:
        for version in (1, 2):
            path.write_text(f"VALUE = {version}")
            ex.upload(path)
        cluster.add_worker("late")
        eventually(lambda: ex.stats()["threads"] == 2 or ex.submit(int).result(LIMIT), "", 30)
        late = ex.with_options(workers=["late"])
        assert late.submit(where_from, "uploaded_later").result(LIMIT) == ("late", 2)


def test_gone_with_the_executor(cluster: Cluster, tmp_path: Path) -> None:
    """After the shutdown nothing of it can be imported on a cluster that goes on."""
    from daskexec import DaskExecutor

    path = tmp_path / "uploaded_for_now.py"
    path.write_text("VALUE = 1")
    with DaskExecutor(cluster=cluster.address) as ex:
        ex.upload(path)
        assert ex.submit(imports, "uploaded_for_now").result(LIMIT) == "uploaded_for_now"
    with (
        DaskExecutor(cluster=cluster.address) as ex,
        pytest.raises(ModuleNotFoundError, match="uploaded_for_now"),
    ):
        ex.submit(imports, "uploaded_for_now").result(LIMIT)


def test_nothing_is_uploaded_after_shutdown(tmp_path: Path) -> None:
    """As with submit, it is a RuntimeError."""
    from daskexec import DaskExecutor

    path = tmp_path / "uploaded_never.py"
    path.write_text("")
    executor = DaskExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.upload(path)
