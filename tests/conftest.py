"""Settings of all tests.

Hypothesis has no deadline, because a busy host would exceed any, and tries 20 examples, others in every run.
"""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import settings

from tests.support.fast import is_fast, no_stack

settings.register_profile("patient", deadline=None, max_examples=20)
settings.load_profile("patient")

# The five seconds that httpx gives a request by default are too few for an object store on a busy machine.
for _part in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _part, 60.0)

# All tested servers are on this host, without TLS. Reading the file of trusted certificates takes each HTTP client
# 27 ms of processor time; certificates in a directory are read only when one is needed.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)

# jsonschema imports it if it is there, and its import compiles 38 grammars for 2 s. No test checks an IRI.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

pytest_plugins = ("tests.support.crashes",)

TESTS = Path(__file__).parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hold tests/fast.txt true in every run, and not only in that of `make test-fast`."""
    with no_stack() if is_fast(item.path) else nullcontext():
        return (yield)


FIRST = (
    "agent_runs/test_kill_matrix.py",
    "images",
    "conformance",
    "chaos/test_scenarios.py",
    "tour/test_exec.py",
    "worker/test_store_faults.py",
    "browser",
    "browser_tool",
    "chaos",
    "agent_runs",
    "k8s_executor",
    "tour",
    "worker",
    "devstack",
    "local_executor",
    "executors",
)
"""Files and folders that take longest or wait most, in the order in which they are started: at the end, such a file
would keep one process busy alone. Files that wait, and files that need a processor, stand beside each other."""
TOGETHER = (
    tuple(f"tests/browser/test_{name}.py" for name in ("event_source", "example", "outages", "upload")),
    ("tests/browser_tool/test_actions.py", "tests/browser_tool/test_hostile_pages.py"),
    (
        "tests/tour/test_client_jobs.py",
        "tests/tour/test_client_page.py",
        "tests/tour/test_examples.py",
        "tests/tour/test_verify.py",
    ),
)
"""Files that one process runs, because they share a server of their folder that takes seconds to start."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in FIRST first, in that order."""
    ranks: dict[Path, int] = {}

    def rank(item: pytest.Item) -> int:
        if item.path not in ranks:
            path = item.path.relative_to(TESTS)
            ranks[item.path] = next((n for n, name in enumerate(FIRST) if path.is_relative_to(name)), len(FIRST))
        return ranks[item.path]

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a scheduler for `--dist loadfile` that gives the files of a group in TOGETHER to the same process."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class LoadGroupedFiles(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((group[0] for group in TOGETHER if file in group), file)

    return LoadGroupedFiles(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage while tests are collected, and examine what they consist of never again.

    Half a million objects live until the end, in each process of a run.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one more than the number of processors: tests wait for a third of their time."""
    return 1 + (os.cpu_count() or 1)
