"""The matrix of faults: what may go wrong, and the tests that show what then happens.

Most rows are promises of the contract and have their tests there, over several executors; what
is not tested elsewhere is in this folder.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

#: What happens -> where it is tested, below ``tests``.
MATRIX: dict[str, tuple[str, ...]] = {
    "a call raises": (
        "contract/test_exceptions.py::test_remote_traceback_is_the_cause",
        "contract/test_outcomes.py::test_failure_leaves_others_alone",
    ),
    "its exception needs arguments of __init__, or holds a lock": (
        "contract/test_exceptions.py::test_several_arguments",
        "contract/test_exceptions.py::test_holding_a_lock",
    ),
    "RecursionError": ("contract/test_exceptions.py::test_recursion_error",),
    "KeyboardInterrupt or sys.exit in a call": (
        "contract/test_outcomes.py::test_base_exceptions_are_delivered",
        "contract/test_outcomes.py::test_sys_exit_is_delivered",
    ),
    "function or argument does not pickle": (
        "contract/test_pickling.py::test_argument_that_does_not_pickle",
        "contract/test_pickling.py::test_function_that_does_not_pickle",
    ),
    "result does not pickle": ("contract/test_pickling.py::test_result_that_does_not_pickle",),
    "result does not unpickle": ("contract/test_pickling.py::test_result_that_does_not_unpickle",),
    "argument does not unpickle on the worker": (
        "contract/test_pickling.py::test_argument_that_does_not_unpickle",
    ),
    "argument kills its unpickler": (
        "contract/test_pickling.py::test_argument_that_kills_its_unpickler",
    ),
    "os._exit, segmentation fault, SIGKILL": (
        "contract/test_crash.py::test_killer_runs_once",
        "faults/test_given.py::test_killer_runs_once",
        "faults/test_own.py::test_killer_in_a_call_of_a_call",
    ),
    "innocents beside a killer": (
        "contract/test_crash.py::test_others_finish",
        "contract/test_crash.py::test_one_killer_among_many_short_calls",
        "cluster/test_sharing.py::test_a_killer_among_them",
        "faults/test_given.py::test_killer_in_a_map",
    ),
    "worker dies after its results were delivered": (
        "contract/test_crash.py::test_finished_calls_are_not_run_again",
        "faults/test_given.py::test_finished_calls_are_not_run_again",
    ),
    "worker dies before its result was fetched": (
        "unit/test_settling.py::test_a_result_that_has_not_outlived_its_worker",
        "faults/test_given.py::test_a_result_that_is_lost",
        "faults/test_own.py::test_results_that_have_not_been_fetched",
    ),
    "memory limit": (
        "faults/test_own.py::test_memory_limit",
        "faults/test_given.py::test_memory_limit",
    ),
    "no worker": (
        "versus/test_against_dask.py::test_21_a_wait_without_prospect_says_so",
        "unit/test_patience.py::test_missing_workers_are_said_at_growing_intervals",
    ),
    "all workers are paused": ("faults/test_given.py::test_paused_workers",),
    "all workers are gone, for too long": ("faults/test_lost.py::test_all_workers_are_gone",),
    "scheduler is killed": (
        "cluster/test_remote.py::test_scheduler_killed",
        "cluster/test_remote.py::test_scheduler_killed_while_idle",
        "network/test_hosts.py::test_cut_in_mid_transfer",
    ),
    "scheduler is restarted on the same port": (
        "faults/test_lost.py::test_scheduler_is_restarted",
    ),
    "scheduler is stopped, then continued": ("faults/test_given.py::test_scheduler_is_stopped",),
    "worker is stopped, then continued": ("faults/test_given.py::test_worker_is_stopped",),
    "scheduler removes a worker for its silence": (
        "faults/test_lost.py::test_a_worker_is_removed_for_its_silence",
        "faults/test_lost.py::test_one_that_was_removed_goes_on",
    ),
    "a call holds the GIL": (
        "faults/test_given.py::test_a_call_holds_the_gil",
        "faults/test_own.py::test_a_call_holds_the_gil",
        "faults/test_own.py::test_calls_behind_one_that_holds_the_gil",
    ),
    "client or cluster is closed under us": (
        "cluster/test_remote.py::test_client_closed_under_us",
        "faults/test_lost.py::test_cluster_is_closed",
    ),
    "the program ends with calls pending": ("cluster/test_exits.py::test_ends",),
    "shutdown(wait=False) with calls pending": (
        "contract/test_exit.py::test_pending_calls_run_after_shutdown_without_wait",
    ),
    "Ctrl-C in the terminal": (
        "cluster/test_endings.py::test_interrupt_of_the_whole_group",
        "cluster/test_keeper.py::test_ctrl_c_reaches_the_client_alone",
    ),
    "cancel() of a running call": ("contract/test_states.py::test_running_cannot_be_cancelled",),
    "cancels race with the finish": ("contract/test_cancel_race.py::test_every_future_ends",),
    "submit or map after shutdown": ("contract/test_shutdown.py::test_refuses_afterwards",),
    "SystemExit in a callback": ("contract/test_callbacks.py::test_base_exception_ends_nothing",),
    "blocking result() in a callback": ("contract/test_callbacks.py::test_callback_that_waits",),
    "nested submit": ("contract/test_nested.py::test_many_at_once",),
    "fork after use": (
        "contract/test_fork.py::test_shutdown_in_the_child",
        "cluster/test_endings.py::test_forked_child_exits",
        "cluster/test_endings.py::test_forked_child_submits",
    ),
    "blocking call on an asynchronous client's own loop": (
        "cluster/test_remote.py::test_asynchronous_client",
    ),
    "no __main__ guard in a script": ("cluster/test_endings.py::test_no_main_guard",),
    "100,000 pending calls": ("faults/test_lost.py::test_many_pending_calls",),
    "the same large argument to 1,000 calls": ("cluster/test_large.py::test_a_thousand_calls",),
    "an argument of megabytes": ("contract/test_volume.py::test_large_argument_without_warning",),
    "polite exit": ("cluster/test_exits.py::test_ends",),
    "the client is killed": ("cluster/test_exits.py::test_ends",),
    "a host is lost, or cut off": (
        "network/test_hosts.py::test_a_worker_is_lost",
        "network/test_hosts.py::test_the_scheduler_is_lost",
        "network/test_hosts.py::test_a_worker_comes_back",
    ),
    "the network is slow, or loses packets": ("network/test_hosts.py::test_a_bad_network",),
}


@cache
def _tests_in(path: str) -> set[str]:
    tree = ast.parse((TESTS / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", MATRIX)
def test_each_row_has_its_tests(row: str) -> None:
    """What the table of faults names exists."""
    for test in MATRIX[row]:
        path, _, name = test.partition("::")
        assert name in _tests_in(path), f"{test} is gone: where is {row!r} tested now?"
