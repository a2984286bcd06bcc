"""CPython's tests of the executor, wait, as_completed, shutdown, initializers and crashes."""

from __future__ import annotations

import pytest
from daskexec_testing import cpython

if not cpython.available():
    pytest.skip("this interpreter ships no tests of its own", allow_module_level=True)

from daskexec_testing.cpython_dask import SUITES

globals().update(SUITES)  # where pytest looks for them

pytestmark = pytest.mark.timeout(60, method="signal")  # a hang fails its test, not the run
