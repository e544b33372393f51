"""Settings of all tests.

Hypothesis has no deadline, because a busy host would exceed any, and tries 40 examples, others in every run.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.fast import is_fast, listed_paths, no_stack

settings.register_profile("patient", deadline=None, max_examples=30)
settings.load_profile("patient")

# All tested servers are on this host, without TLS. Reading the file of trusted certificates takes each HTTP client
# 27 ms of processor time; certificates in a directory are read only when one is needed.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)


TESTS = Path(__file__).parent
_FAST = listed_paths()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hold tests/fast.txt true in every run, and not only in that of `make test-fast`."""
    with no_stack() if is_fast(item.path, _FAST) else nullcontext():
        return (yield)


WAITING = ("chaos", "k8s_executor", "browser_tool", "tour", "conformance", "devstack")
"""Folders whose tests wait most, or whose files take longest. They come first: at the end, such a file would keep one
process busy alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in WAITING first, folder by folder."""
    ranks = {name: rank for rank, name in enumerate(WAITING)}
    items.sort(key=lambda item: ranks.get(item.path.relative_to(TESTS).parts[0], len(ranks)))


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
